package netns

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// UnsupportedError says what the kernel lacks. It matches [ErrUnsupported].
type UnsupportedError struct {
	// Module and Option name the missing part, as in "sch_tbf" and
	// "CONFIG_NET_SCH_TBF".
	Module, Option string
	// For is what it is needed for.
	For string
	Err error
}

func (e *UnsupportedError) Error() string {
	return fmt.Sprintf("%v: the kernel has no %s (%s), which %s need", e.Err, e.Module, e.Option, e.For)
}

func (e *UnsupportedError) Unwrap() []error { return []error{ErrUnsupported, e.Err} }

// unsupported tells the errors apart with which the kernel says that it has no
// such part.
func unsupported(err error, module, option, use string) error {
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOENT) {
		return &UnsupportedError{Module: module, Option: "CONFIG_" + option, For: use, Err: err}
	}
	return err
}

// replaceByForward makes one rule the only one of a chain: it sends packets to the
// device whose index is the data of to. The library knows no such expression, so
// the transaction is written here (nft_fwd in linux/netfilter/nf_tables.h).
func (c *filterConn) replaceByForward(chain *nftables.Chain, to *expr.Immediate, note []byte) error {
	const sourceDevice = 1 // NFTA_FWD_SREG_DEV
	family := chain.Table.Family
	first, err := expr.Marshal(byte(family), to)
	if err != nil {
		return fmt.Errorf("encode rule: %w", err)
	}
	data := appendTLV(nil, sourceDevice, binary.BigEndian.AppendUint32(nil, to.Register))
	second := appendTextTLV(nil, unix.NFTA_EXPR_NAME, "fwd")
	second = appendTLV(second, unix.NLA_F_NESTED|unix.NFTA_EXPR_DATA, data)
	exprs := appendTLV(nil, unix.NLA_F_NESTED|unix.NFTA_LIST_ELEM, first)
	exprs = appendTLV(exprs, unix.NLA_F_NESTED|unix.NFTA_LIST_ELEM, second)

	where := appendTextTLV(appendTextTLV(nil, unix.NFTA_RULE_TABLE, chain.Table.Name), unix.NFTA_RULE_CHAIN, chain.Name)
	rule := appendTLV(slices.Clip(where), unix.NLA_F_NESTED|unix.NFTA_RULE_EXPRESSIONS, exprs)
	rule = appendTLV(rule, unix.NFTA_RULE_USERDATA, note)
	// All or nothing. Only the last message asks for an answer; the one before it
	// answers when it fails.
	return c.request(slices.Concat(
		encodeMessage(unix.NFNL_MSG_BATCH_BEGIN, 0, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES, nil),
		filterMessage(unix.NFT_MSG_DELRULE, 0, family, where),
		filterMessage(unix.NFT_MSG_NEWRULE, unix.NLM_F_ACK|unix.NLM_F_CREATE|unix.NLM_F_APPEND, family, rule),
		encodeMessage(unix.NFNL_MSG_BATCH_END, 0, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES, nil),
	), func([]byte) {})
}
