package netns

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"
)

// filterRule is one rule of a chain.
type filterRule struct {
	// note is the rule's comment behind the container's tag. A rule that drops
	// says there for what reason, and counts.
	note  string
	exprs []expr.Any
}

// register is the number by which the kernel reports the register that begins at
// a 32-bit word: the first of four words bears the number of the 128-bit one
// (enum nft_registers in linux/netfilter/nf_tables.h).
func register(word int) uint32 {
	if word%4 == 0 {
		return uint32(unix.NFT_REG_1 + word/4)
	}
	return uint32(unix.NFT_REG32_00 + word)
}

func loadField(base expr.PayloadBase, offset, length, word int) expr.Any {
	return &expr.Payload{DestRegister: register(word), Base: base, Offset: uint32(offset), Len: uint32(length)}
}

func loadMeta(key expr.MetaKey, word int) expr.Any {
	return &expr.Meta{Key: key, Register: register(word)}
}

func compare(op expr.CmpOp, data ...byte) expr.Any {
	return &expr.Cmp{Op: op, Register: register(0), Data: data}
}

func lookup(set string) expr.Any {
	return &expr.Lookup{SourceRegister: register(0), SetName: set}
}

func verdict(kind expr.VerdictKind) expr.Any { return &expr.Verdict{Kind: kind} }

// matchLink, matchNetwork and matchTransport compare bytes of a header. A packet
// that has not so many bytes, or no such header, does not match.
func matchLink(offset int, data ...byte) []expr.Any {
	return matchField(expr.PayloadBaseLLHeader, offset, data)
}

func matchNetwork(offset int, data ...byte) []expr.Any {
	return matchField(expr.PayloadBaseNetworkHeader, offset, data)
}

func matchTransport(offset int, data ...byte) []expr.Any {
	return matchField(expr.PayloadBaseTransportHeader, offset, data)
}

func matchField(base expr.PayloadBase, offset int, data []byte) []expr.Any {
	return []expr.Any{loadField(base, offset, len(data), 0), compare(expr.CmpOpEq, data...)}
}

func matchMeta(key expr.MetaKey, op expr.CmpOp, data ...byte) []expr.Any {
	return []expr.Any{loadMeta(key, 0), compare(op, data...)}
}

func acceptRule(note string, matches ...[]expr.Any) filterRule {
	return filterRule{note, append(slices.Concat(matches...), verdict(expr.VerdictAccept))}
}

func dropRule(reason string, matches ...[]expr.Any) filterRule {
	return filterRule{reason, append(slices.Concat(matches...), &expr.Counter{}, verdict(expr.VerdictDrop))}
}

// ifname is a link's name as the kernel keeps it in a register.
func ifname(name string) []byte {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, name)
	return b
}

// comment is a rule's comment as nft(8) shows it.
func comment(s string) []byte { return userdata.AppendString(nil, userdata.TypeComment, s) }

// chainOf is a chain with all its rules, in a form that can be compared with
// what the kernel has.
type chainOf struct {
	chain *nftables.Chain
	tag   string
	rules []filterRule
}

// same says whether the kernel's rules are exactly the wanted ones, whatever
// their counters say.
func (c chainOf) same(have []presentRule) (bool, error) {
	if len(have) != len(c.rules) {
		return false, nil
	}
	for i, r := range c.rules {
		exprs := have[i].expressions()
		if len(exprs) != len(r.exprs) || !bytes.Equal(have[i].comment, c.comment(r)) {
			return false, nil
		}
		for j, e := range r.exprs {
			same, err := sameExpression(byte(c.chain.Table.Family), e, exprs[j])
			if err != nil || !same {
				return false, err
			}
		}
	}
	return true, nil
}

func sameExpression(family byte, want expr.Any, have []byte) (bool, error) {
	b, err := expr.Marshal(family, want)
	if err != nil {
		return false, fmt.Errorf("encode rule: %w", err)
	}
	if !bytes.Equal(attribute(b, unix.NFTA_EXPR_NAME), attribute(have, unix.NFTA_EXPR_NAME)) {
		return false, nil
	}
	var ignored []uint16
	switch want.(type) {
	case *expr.Counter:
		return true, nil
	case *expr.Lookup: // names its set twice, the second time for the transaction only
		ignored = []uint16{unix.NFTA_LOOKUP_SET_ID}
	case *expr.NAT: // the kernel adds that it maps addresses, which the others say
		ignored = []uint16{unix.NFTA_NAT_FLAGS}
	}
	return sameAttributes(attribute(b, unix.NFTA_EXPR_DATA), attribute(have, unix.NFTA_EXPR_DATA), ignored...), nil
}

func (c chainOf) comment(r filterRule) []byte { return comment(c.tag + " " + r.note) }

// queue queues what makes the chain complete from any state. Flushing it first
// keeps two processes that do this at once from doubling the rules.
func (c chainOf) queue(conn *nftables.Conn) {
	conn.AddChain(c.chain)
	conn.FlushChain(c.chain)
	for _, r := range c.rules {
		conn.AddRule(&nftables.Rule{Table: c.chain.Table, Chain: c.chain, Exprs: r.exprs, UserData: c.comment(r)})
	}
}

// nativeUint32 is a number in the byte order in which the kernel compares it.
func nativeUint32(n uint32) []byte { return binaryutil.NativeEndian.PutUint32(n) }
