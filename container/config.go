package container

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/ctctl/ctctl/internal/runc"
	"github.com/ctctl/ctctl/internal/statefile"
	"github.com/ctctl/ctctl/netns"
	"github.com/ctctl/ctctl/profile"
	"github.com/ctctl/ctctl/quota"
)

// Config is what the admin wants a container to be: containers/NAME/config.json,
// made to be edited by hand while the container is stopped.
type Config struct {
	Name     string    `json:"name"`
	UID      string    `json:"uid"`  // 16 hex digits; never changes
	CTID     uint32    `json:"ctid"` // unique on the host: id range, quota group, automatic addresses
	Created  time.Time `json:"created"`
	Template string    `json:"template"`

	Hostname string   `json:"hostname"`
	Command  []string `json:"command,omitempty"` // none: the template's init
	Init     string   `json:"init,omitempty"`    // the template's init, used without a command
	Env      []string `json:"env,omitempty"`
	Workdir  string   `json:"workdir,omitempty"`

	UserNS  string       `json:"userns"` // auto or host
	Limits  quota.Limits `json:"limits"`
	Network Network      `json:"network"`

	Profile Profile `json:"profile,omitzero"`

	Onboot      bool   `json:"onboot,omitempty"`
	Restart     string `json:"restart,omitempty"`            // no (default), on-failure, always
	StopSignal  string `json:"stopSignal,omitempty"`         // default by init
	StopTimeout int    `json:"stopTimeoutSeconds,omitempty"` // default 30
}

// Network is what the container has of the network.
type Network struct {
	Interfaces []netns.Interface `json:"interfaces,omitempty"`
	DNS        []netip.Addr      `json:"dns,omitempty"`    // none: the host's, with NAT
	Search     []string          `json:"search,omitempty"` // domains
	Forwards   []netns.Forward   `json:"forwards,omitempty"`
	Isolated   bool              `json:"isolated,omitempty"` // nothing in or out
}

// Addresses are those of all interfaces.
func (n Network) Addresses() []netip.Prefix {
	var all []netip.Prefix
	for _, i := range n.Interfaces {
		all = append(all, i.Addresses...)
	}
	return all
}

// NAT says whether an interface is hidden behind the host's addresses.
func (n Network) NAT() bool {
	return slices.ContainsFunc(n.Interfaces, func(i netns.Interface) bool { return i.NAT || i.Bridge == netns.OwnBridge })
}

var configSchema = statefile.Schema{Kind: "container", Version: 1}

var namePattern = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)

// CheckName answers ErrName unless name is a container's or template's.
func CheckName(name string) error {
	if !namePattern.MatchString(name) {
		return fmt.Errorf("%q: %w", name, ErrName)
	}
	return nil
}

// Id ranges lie in 0x70000000…0x7FFDFFFF, which systemd's UIDS-GIDS document
// leaves to others and which no distribution hands out in /etc/subuid.
const (
	idBase  = 0x70000000
	idSize  = 65536
	maxCTID = 4093
)

func newUID() string {
	b := make([]byte, 8)
	rand.Read(b) // never fails since Go 1.24
	return hex.EncodeToString(b)
}

// Validate checks a configuration; the error names the field.
func (c Config) Validate() error {
	bad := func(field, format string, args ...any) error {
		return fmt.Errorf("%w: %s: %s", ErrConfig, field, fmt.Sprintf(format, args...))
	}
	if err := CheckName(c.Name); err != nil {
		return err
	}
	switch {
	case !regexp.MustCompile(`^[0-9a-f]{16}$`).MatchString(c.UID):
		return bad("uid", "must be 16 hex digits and never change")
	case c.CTID < 1 || c.CTID > maxCTID:
		return bad("ctid", "must be 1 to %d", maxCTID)
	case c.UserNS != "auto" && c.UserNS != "host":
		return bad("userns", "%q is neither auto nor host", c.UserNS)
	case !slices.Contains([]string{"", "no", "on-failure", "always"}, c.Restart):
		return bad("restart", "%q is none of no, on-failure, always", c.Restart)
	case !slices.Contains([]string{"", "on", "off"}, c.Profile.Checkpointable):
		return bad("profile.checkpointable", "%q is neither on nor off", c.Profile.Checkpointable)
	case c.StopTimeout < 0:
		return bad("stopTimeoutSeconds", "must not be negative")
	case c.Workdir != "" && !path.IsAbs(c.Workdir):
		return bad("workdir", "%q is not an absolute path", c.Workdir)
	case len(c.Command) == 0 && c.Init == "":
		return bad("command", "the template %q has no init: say which command to run", c.Template)
	case len(c.Command) > 0 && c.Command[0] == "":
		return bad("command[0]", "is empty")
	}
	if err := checkHostname(c.Hostname); err != nil {
		return bad("hostname", "%v", err)
	}
	for i, e := range c.Env {
		if k, _, ok := strings.Cut(e, "="); !ok || k == "" || strings.ContainsRune(e, 0) {
			return bad(fmt.Sprintf("env[%d]", i), "%q is not KEY=VALUE", e)
		}
	}
	if _, err := c.stopSignal(); err != nil {
		return bad("stopSignal", "%v", err)
	}
	if err := profile.CheckWithout(c.Profile.Without); err != nil {
		return bad("profile.without", "%v", err)
	}
	if err := c.Limits.Validate(); err != nil {
		return bad("limits", "%v", err)
	}
	if err := c.checkNames(); err != nil {
		return err
	}
	if err := c.checkAddresses(); err != nil {
		return err
	}
	if err := c.netConfig().Validate(); err != nil {
		return fmt.Errorf("%w: network: %w", ErrConfig, err)
	}
	return nil
}

// As many as resolv.conf(5) may have.
const (
	maxNameServers   = 3
	maxSearchDomains = 6
)

var domainPattern = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_.])?$`)

func (c Config) checkNames() error {
	if len(c.Network.DNS) > maxNameServers || len(c.Network.Search) > maxSearchDomains {
		return fmt.Errorf("%w: network.dns, network.search: more than %d name servers or %d domains", ErrConfig, maxNameServers, maxSearchDomains)
	}
	for i, a := range c.Network.DNS {
		if !a.IsValid() || a.Zone() != "" || a.IsUnspecified() || a.IsMulticast() {
			return fmt.Errorf("%w: network.dns[%d]: %q is no address of a name server", ErrConfig, i, a)
		}
	}
	for i, d := range c.Network.Search {
		if len(d) > 253 || !domainPattern.MatchString(d) {
			return fmt.Errorf("%w: network.search[%d]: %q is no domain", ErrConfig, i, d)
		}
	}
	return nil
}

func checkHostname(h string) error {
	if h == "" || len(h) > 64 {
		return fmt.Errorf("%q must have 1 to 64 characters", h)
	}
	if !regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$`).MatchString(h) {
		return fmt.Errorf("%q has characters a host name can't have", h)
	}
	return nil
}

func (c Config) checkAddresses() error {
	seen := map[netip.Addr]bool{}
	for n, link := range c.Network.Interfaces {
		for i, p := range link.Addresses {
			field := fmt.Sprintf("network.interfaces[%d].addresses[%d]", n, i)
			switch {
			case !p.IsValid():
				return fmt.Errorf("%w: %s: not an address", ErrConfig, field)
			case seen[p.Addr()]:
				return fmt.Errorf("%w: %s: %s is there twice", ErrConfig, field, p.Addr())
			}
			seen[p.Addr()] = true
		}
	}
	return nil
}

// System says whether PID 1 is the template's init rather than one command.
func (c Config) System() bool { return len(c.Command) == 0 }

// CgroupName is the container's cgroup in every hierarchy.
func (c Config) CgroupName() string { return "/ctctl-" + c.UID }

// LinkName is the host side of the container's veth pair.
func (c Config) LinkName() string { return "ct" + c.UID[:12] }

// IDs is the container's id range; nil with the host's user namespace.
func (c Config) IDs() *runc.IDRange {
	if c.UserNS == "host" {
		return nil
	}
	return &runc.IDRange{Base: idBase + c.CTID*idSize, Size: idSize}
}

func (c Config) netConfig() netns.Config {
	return netns.Config{
		UID: c.UID, Interfaces: c.Network.Interfaces, Forwards: c.Network.Forwards, Isolated: c.Network.Isolated,
	}
}

func (c Config) args() []string {
	if c.System() {
		return []string{c.Init}
	}
	return c.Command
}
