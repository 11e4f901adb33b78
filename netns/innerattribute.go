package netns

import (
	"encoding/binary"
	"errors"
)

// tlv is one netlink attribute (struct nlattr): a length of two bytes
// with itself, a type, the data, padding to four bytes.
type tlv struct {
	kind uint16 // as it is on the wire, flags included
	data []byte
}

const (
	attributeHeader = 4
	// attributeKind is NLA_TYPE_MASK of linux/netlink.h: the type without
	// NLA_F_NESTED and NLA_F_NET_BYTEORDER.
	attributeKind = 0x3fff
)

var errAttributes = errors.New("malformed netlink attributes")

// parseTLVs splits b; the data stay parts of b.
func parseTLVs(b []byte) ([]tlv, error) {
	var all []tlv
	for len(b) > 0 {
		if len(b) < attributeHeader {
			return nil, errAttributes
		}
		size := int(binary.NativeEndian.Uint16(b))
		if size < attributeHeader || size > len(b) {
			return nil, errAttributes
		}
		all = append(all, tlv{binary.NativeEndian.Uint16(b[2:]), b[attributeHeader:size]})
		b = b[min(align(size), len(b)):]
	}
	return all, nil
}

func appendTLV(b []byte, kind uint16, data []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(attributeHeader+len(data)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	return pad(append(b, data...))
}

func appendTextTLV(b []byte, kind uint16, s string) []byte {
	return appendTLV(b, kind, append([]byte(s), 0))
}

func appendUint32TLV(b []byte, kind uint16, v uint32) []byte {
	return appendTLV(b, kind, binary.NativeEndian.AppendUint32(nil, v))
}

func appendBig32TLV(b []byte, kind uint16, v uint32) []byte {
	return appendTLV(b, kind, binary.BigEndian.AppendUint32(nil, v))
}

// keep returns the attributes whose types are in the list, in their order.
func keep(all []tlv, kinds ...uint16) []byte {
	var b []byte
	for _, a := range all {
		for _, k := range kinds {
			if a.kind&attributeKind == k {
				b = appendTLV(b, a.kind, a.data)
				break
			}
		}
	}
	return b
}

func find(all []tlv, kind uint16) ([]byte, bool) {
	for _, a := range all {
		if a.kind&attributeKind == kind {
			return a.data, true
		}
	}
	return nil, false
}

// nested returns the attributes inside the one of this kind, none if absent.
func nested(all []tlv, kind uint16) ([]tlv, error) {
	b, ok := find(all, kind)
	if !ok {
		return nil, nil
	}
	return parseTLVs(b)
}

func findText(all []tlv, kind uint16) string {
	b, _ := find(all, kind)
	return text(b)
}

// findUint32 is 0 when the attribute is absent or has another size.
func findUint32(all []tlv, kind uint16) uint32 {
	if b, ok := find(all, kind); ok && len(b) == 4 {
		return binary.NativeEndian.Uint32(b)
	}
	return 0
}

func findBig32(all []tlv, kind uint16) uint32 {
	if b, ok := find(all, kind); ok && len(b) == 4 {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func pad(b []byte) []byte { return append(b, 0, 0, 0)[:align(len(b))] }
