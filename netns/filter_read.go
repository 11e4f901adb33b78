package netns

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"
)

// element is one element of a set or map. Its owner is the tag of a container.
type element struct {
	value string
	owner string
}

// elements returns the elements of a set by their keys, those that wanted says yes
// to; nil without the set.
func (c *filterConn) elements(set *nftables.Set, wanted func(key, owner []byte) bool) (map[string]element, error) {
	var out map[string]element
	known, err := c.dump(unix.NFT_MSG_GETSETELEM, set.Table, set.Name, unix.NFTA_SET_ELEM_LIST_SET,
		func() { out = make(map[string]element) },
		func(attrs []byte) {
			for _, b := range attributes(attribute(attrs, unix.NFTA_SET_ELEM_LIST_ELEMENTS)) {
				key := attribute(attribute(b, unix.NFTA_SET_ELEM_KEY), unix.NFTA_DATA_VALUE)
				owner := ownerOf(attribute(b, unix.NFTA_SET_ELEM_USERDATA))
				if wanted(key, owner) {
					value := attribute(attribute(b, unix.NFTA_SET_ELEM_DATA), unix.NFTA_DATA_VALUE)
					out[string(key)] = element{string(value), string(owner)}
				}
			}
		})
	if err != nil {
		return nil, fmt.Errorf("list set %s: %w", set.Name, err)
	}
	if !known {
		return nil, nil
	}
	return out, nil
}

func anyElement(_, _ []byte) bool { return true }

// ownerOf is the comment in the user data of an element: type, length, text.
func ownerOf(b []byte) []byte {
	for len(b) >= 2 && len(b) >= 2+int(b[1]) {
		if b[0] == byte(userdata.NFTNL_UDATA_SET_ELEM_COMMENT) {
			return bytes.TrimRight(b[2:2+int(b[1])], "\x00")
		}
		b = b[2+int(b[1]):]
	}
	return nil
}

// names lists the chains or sets of a table whose names begin with a prefix.
func (c *filterConn) names(kind int, table *nftables.Table, prefix string) ([]string, error) {
	at := uint16(unix.NFTA_SET_NAME)
	if kind == unix.NFT_MSG_GETCHAIN {
		at = unix.NFTA_CHAIN_NAME
	}
	var out []string
	_, err := c.dump(kind, table, "", 0, func() { out = nil }, func(attrs []byte) {
		name := attribute(attrs, at)
		// The chains of other tables of this family are listed too.
		if bytes.HasPrefix(name, []byte(prefix)) && text(attribute(attrs, 1)) == table.Name {
			out = append(out, text(name))
		}
	})
	if err != nil {
		return nil, fmt.Errorf("list table %s: %w", table.Name, err)
	}
	return out, nil
}

// presentRule is a rule as the kernel tells it.
type presentRule struct {
	comment []byte // user data
	exprs   []byte // attributes
}

// rules lists a chain; without the chain there are none.
func (c *filterConn) rules(chain *nftables.Chain) ([]presentRule, error) {
	var out []presentRule
	_, err := c.dump(unix.NFT_MSG_GETRULE, chain.Table, chain.Name, unix.NFTA_RULE_CHAIN, func() { out = nil }, func(attrs []byte) {
		out = append(out, presentRule{
			bytes.Clone(attribute(attrs, unix.NFTA_RULE_USERDATA)),
			bytes.Clone(attribute(attrs, unix.NFTA_RULE_EXPRESSIONS)),
		})
	})
	if err != nil {
		return nil, fmt.Errorf("list chain %s: %w", chain.Name, err)
	}
	return out, nil
}

// expressions returns the attributes of a rule's expressions.
func (r presentRule) expressions() [][]byte {
	var out [][]byte
	for _, e := range attributes(r.exprs) {
		out = append(out, e)
	}
	return out
}

// sameAttributes says whether two encodings mean the same: the kernel tells them
// in another order, without the flag of nesting, and with more that is zero.
func sameAttributes(want, have []byte, ignored ...uint16) bool {
	known := make([]uint16, 0, 8)
	for k, w := range attributes(want) {
		kind := k &^ attributeFlags
		known = append(known, kind)
		if slices.Contains(ignored, kind) {
			continue
		}
		h := attribute(have, kind)
		if k&unix.NLA_F_NESTED != 0 {
			if !sameAttributes(w, h) {
				return false
			}
		} else if !bytes.Equal(w, h) {
			return false
		}
	}
	for k, h := range attributes(have) {
		if !slices.Contains(known, k&^attributeFlags) && strings.Trim(string(h), "\x00") != "" {
			return false
		}
	}
	return true
}
