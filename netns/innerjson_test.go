package netns

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestImpossibleRecordsAreRefused(t *testing.T) {
	route := string(mustJSON(t, append(make([]byte, unix.SizeofRtMsg), appendUint32TLV(nil, unix.RTA_OIF, 2)...)))
	elsewhere := string(mustJSON(t, appendUint32TLV(nil, unix.IFLA_NET_NS_PID, 1)))
	for name, test := range map[string]struct {
		text, reason string
	}{
		"no JSON":                     {`{`, "JSON"},
		"another type":                {`[]`, "array"},
		"a field of later":            {`{"version":1,"later":1}`, "later"},
		"a version of later":          {`{"version":2,"sysctls":{"core/somaxconn":"1"}}`, "version 2"},
		"no version":                  {`{"sysctls":{"core/somaxconn":"1"}}`, "version 0"},
		"a setting elsewhere":         {`{"version":1,"sysctls":{"../kernel/core_pattern":"|x"}}`, "setting"},
		"an absolute setting":         {`{"version":1,"sysctls":{"/etc/passwd":"x"}}`, "setting"},
		"a setting by a detour":       {`{"version":1,"sysctls":{"core/./somaxconn":"1"}}`, "setting"},
		"an empty setting":            {`{"version":1,"sysctls":{"":"1"}}`, "setting"},
		"a long value":                {`{"version":1,"sysctls":{"core/somaxconn":"` + strings.Repeat("1", maxSysctl+1) + `"}}`, "value"},
		"a link with a path":          {`{"version":1,"links":[{"name":"../x","kind":"bridge"}]}`, "link name"},
		"a long link":                 {`{"version":1,"links":[{"name":"0123456789abcdef"}]}`, "link name"},
		"a link named by a pattern":   {`{"version":1,"links":[{"name":"eth%d","kind":"bridge"}]}`, "link name"},
		"a kind that is not made":     {`{"version":1,"links":[{"name":"x","kind":"wireguard"}]}`, "wireguard"},
		"a veth with its own data":    {`{"version":1,"links":[{"name":"x","kind":"veth","peer":"y","data":` + elsewhere + `}]}`, "not recorded"},
		"a bridge with strange data":  {`{"version":1,"links":[{"name":"x","kind":"bridge","data":` + elsewhere + `}]}`, "not recorded"},
		"a port with strange data":    {`{"version":1,"links":[{"name":"x","master":"y","port":` + elsewhere + `}]}`, "not recorded"},
		"a bridge with much data":     {`{"version":1,"links":[{"name":"x","kind":"bridge","data":"` + strings.Repeat("A", 8192) + `"}]}`, "too long"},
		"an address that is none":     {`{"version":1,"addresses":[{"link":"eth0","address":"10.0.0.1"}]}`, "no '/'"},
		"no address":                  {`{"version":1,"addresses":[{"link":"eth0","address":""}]}`, "not one"},
		"a peer of the other kind":    {`{"version":1,"addresses":[{"link":"eth0","address":"10.0.0.1/8","peer":"fd00::1"}]}`, "goes with"},
		"no neighbour":                {`{"version":1,"neighbours":[{"link":"eth0","address":""}]}`, "neighbour"},
		"a short route":               {`{"version":1,"routes":[{"message":"AAAA"}]}`, "malformed"},
		"a route to an unknown link":  {`{"version":1,"routes":[{"links":["eth0"],"message":` + route + `}]}`, "link 2 of 1"},
		"a rule with half attributes": {`{"version":1,"rules":[{"message":"AAAAAAAAAAAAAAAAAQ=="}]}`, "malformed"},
		"a filter message that reads": {`{"version":1,"filter":[{"kind":1,"family":1,"data":""}]}`, "type 1"},
		"a filter handle":             {`{"version":1,"filter":[{"kind":0,"family":1,"data":"CAAEAAEAAAA="}]}`, "not recorded"},
		"many rules":                  {`{"version":1,"rules":[` + strings.Repeat(`{"message":"AAAAAAAAAAAAAAAA"},`, maxInnerItems) + `{"message":"AAAAAAAAAAAAAAAA"}]}`, "65536 items"},
		"large":                       {`{"version":1,"missing":["` + strings.Repeat("x", maxInnerJSON) + `"]}`, "16 MiB"},
	} {
		t.Run(name, func(t *testing.T) {
			var in Inner
			err := json.Unmarshal([]byte(test.text), &in)
			if err == nil || !strings.Contains(err.Error(), test.reason) {
				t.Errorf("want %q, got %v", test.reason, err)
			}
			if !in.Empty() {
				t.Errorf("something was taken: %+v", in)
			}
		})
	}
}

func mustJSON(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	must(t, err)
	return b
}

func TestReinstatingAnImpossibleRecordChangesNothing(t *testing.T) {
	in := Inner{Version: innerVersion, Sysctls: map[string]string{"../kernel/hostname": "x"}}
	if err := in.Reinstate(ctx, 1); !errors.Is(err, ErrInner) {
		t.Errorf("got %v", err)
	}
}

func TestTheEmptyRecordIsRead(t *testing.T) {
	for _, text := range []string{`{}`, `{"version":1}`, `{"version":1,"missing":["link wg0 of the kind wireguard"]}`} {
		var in Inner
		must(t, json.Unmarshal([]byte(text), &in))
		if !in.Empty() {
			t.Errorf("%s is not empty", text)
		}
		must(t, in.Reinstate(ctx, 1)) // does not even look for the process
	}
}

func TestReinstatingGoesOnAfterAnError(t *testing.T) {
	requireHost(t)
	ct := newSpace(t, true)
	in := Inner{Version: innerVersion, Routes: []InnerRoute{{
		Links: []string{"gone0"}, Message: append(make([]byte, unix.SizeofRtMsg), appendUint32TLV(nil, unix.RTA_OIF, 1)...),
	}}, Sysctls: map[string]string{"core/somaxconn": "77", "core/nothing": "1"}}
	err := in.Reinstate(ctx, ct.pid)
	for _, want := range []string{"gone0", "core/nothing"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %s, got %v", want, err)
		}
	}
	if got := ct.sysctl(t, "core", "somaxconn"); got != "77" {
		t.Errorf("what could be set was not: %s", got)
	}
}

func TestGroupIdsAreTheContainersInTheRecord(t *testing.T) {
	m := idMap{{0, 100000, 65536}, {65536, 400000, 10}}
	for outside, within := range map[string]string{
		"100000\t100077": "0\t77",
		"400001\t400002": "65537\t65538",
		"1\t0":           "1\t0",
		"0\t2147483647":  "0\t2147483647",
		"nonsense":       "nonsense",
	} {
		if got := m.within(outside); got != within {
			t.Errorf("%q is %q inside, want %q", outside, got, within)
		}
	}
	if got := m.outside("0 77"); got != "100000\t100077" {
		t.Errorf("got %q", got)
	}
}

func FuzzInner(f *testing.F) {
	f.Add([]byte(`{}`))
	f.Add([]byte(`{"version":1,"sysctls":{"core/somaxconn":"1"},"rules":[{"message":"AAAAAAAAAAAAAAAA"}]}`))
	f.Add([]byte(`{"version":1,"routes":[{"links":["eth0"],"message":"AgAAAP4DAAEEAAAACAAPAP4AAAAIAAUAqf4BAQgABAABAAAA"}]}`))
	f.Add([]byte(`{"version":1,"links":[{"name":"br0","kind":"bridge","flags":1}],"filter":[{"kind":0,"family":1,"data":"BgABAHQAAAA="}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var in Inner
		if err := json.Unmarshal(b, &in); err != nil {
			return
		}
		if err := in.check(); err != nil {
			t.Fatalf("taken, but not right: %v", err)
		}
		again, err := json.Marshal(in)
		must(t, err)
		must(t, json.Unmarshal(again, new(Inner)))
		for _, r := range in.Routes {
			_, err := r.request(func(string) (uint32, error) { return 7, nil })
			must(t, err)
		}
		for _, l := range in.Links {
			_ = fmt.Sprint(l.creation(nil), l.settings(map[string]uint32{l.Name: 1}, true))
		}
	})
}

func FuzzFrames(f *testing.F) {
	f.Add(arpFrame(wrongMAC, anyIPv4, gateway4))
	f.Add(solicitation(gateway6))
	f.Add(advertisement(gateway6, gateway6, wrongMAC, false))
	f.Fuzz(func(t *testing.T, b []byte) {
		if said, ok := readARP(b); ok && !said.address.Is4() {
			t.Errorf("got %v", said)
		}
		if said, ok := readND(b, wrongMAC); ok && !said.address.Is6() {
			t.Errorf("got %v", said)
		}
	})
}
