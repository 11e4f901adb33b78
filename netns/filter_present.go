package netns

import (
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// present is what the packet filter holds of a policy.
type present struct {
	// elements of all sets of the policy, whoever owns them; nil if there is no
	// such set.
	elements map[string]map[string]element
	// chains of the container, and whether they are as wanted.
	chains map[string]bool
	// nat and forwards say whether the chains for all containers are as wanted.
	nat, forwards bool
}

func (c *filterConn) present(p policy) (present, error) {
	have := present{elements: map[string]map[string]element{}, chains: map[string]bool{}, forwards: len(p.forwards) == 0}
	for name, set := range p.sets {
		var err error
		if have.elements[name], err = c.elements(set, p.concerns(name)); err != nil {
			return have, err
		}
	}
	names, err := c.names(unix.NFT_MSG_GETCHAIN, guardTable, p.tag)
	if err != nil {
		return have, err
	}
	for _, name := range names {
		want, wanted := p.chains[name]
		if have.chains[name] = false; wanted {
			if have.chains[name], err = c.same(want); err != nil {
				return have, err
			}
		}
	}
	// Nobody but the first container finds no table, and asks no more then.
	if have.elements[natSet4.Name] == nil {
		have.forwards = false
		return have, nil
	}
	if have.nat, err = c.same(natRules()); err != nil || len(p.forwards) == 0 {
		return have, err
	}
	have.forwards, err = c.same(forwardRules(forwardChain))
	if err != nil || !have.forwards {
		return have, err
	}
	have.forwards, err = c.same(forwardRules(hostChain))
	return have, err
}

func (c *filterConn) same(want chainOf) (bool, error) {
	rules, err := c.rules(want.chain)
	if err != nil {
		return false, err
	}
	return want.same(rules)
}

// concerns says which elements of a set matter: the container's, those in the
// place of which it wants its own, and all forwards, which may get in its way.
func (p policy) concerns(set string) func(key, owner []byte) bool {
	if set == forward4.Name || set == forward6.Name {
		return anyElement
	}
	wanted := make(map[string]bool)
	for e := range p.entries {
		if e.set == set {
			wanted[e.key] = true
		}
	}
	return func(key, owner []byte) bool { return string(owner) == p.tag || wanted[string(key)] }
}

// unshaped are links that had a limit and shall have none.
func (p policy) unshaped(have present) []string {
	var links []string
	for name := range have.chains {
		link, shaped := strings.CutSuffix(name, shapeSuffix)
		if shaped && !p.shapes(name) {
			links = append(links, link)
		}
	}
	return links
}

// shapes says whether a chain is one of applyRate's, for a link that has a limit.
func (p policy) shapes(chain string) bool {
	return strings.HasSuffix(chain, shapeSuffix) && slices.Contains(p.shaped, chain)
}
