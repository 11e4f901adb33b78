package container

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"math/big"

	"golang.org/x/sys/unix"
)

// sshDir is where sshd looks for the keys that it proves its identity with.
const sshDir = "etc/ssh"

// hostKey is a pair of files.
type hostKey struct {
	name            string
	private, public []byte
}

// giveHostKeys makes the host keys of a new container whose template has an ssh
// server and no keys: sshd does not start without, and containers that shared the
// template's could pretend to be each other. What a template has stays.
func giveHostKeys(root int, comment string) error {
	if !existsIn(root, "usr/sbin/sshd") || !existsIn(root, sshDir) {
		return nil
	}
	for _, kind := range []string{"rsa", "ecdsa", "ed25519"} {
		if existsIn(root, keyFile(kind)) {
			return nil
		}
	}
	keys, err := newHostKeys(comment)
	if err != nil {
		return err
	}
	for _, k := range keys {
		if err := writeModeIn(root, k.name, string(k.private), 0o600); err != nil {
			return err
		}
		if err := writeModeIn(root, k.name+".pub", string(k.public), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func keyFile(kind string) string { return sshDir + "/ssh_host_" + kind + "_key" }

// existsIn says whether name leads to something in the root.
func existsIn(root int, name string) bool {
	fd, err := unix.Openat2(root, name, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return false
	}
	return unix.Close(fd) == nil
}

// newHostKeys makes the two kinds that every client of the last ten years knows.
func newHostKeys(comment string) ([]hostKey, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalECPrivateKey(curve)
	if err != nil {
		return nil, err
	}
	point, err := curve.PublicKey.ECDH()
	if err != nil {
		return nil, err
	}
	check, err := rand.Int(rand.Reader, big.NewInt(1<<32))
	if err != nil {
		return nil, err
	}
	blob := sshStrings([]byte("ssh-ed25519"), public)
	curveBlob := sshStrings([]byte("ecdsa-sha2-nistp256"), []byte("nistp256"), point.Bytes())
	return []hostKey{
		{keyFile("ed25519"), opensshKey(blob, private, comment, uint32(check.Uint64())), publicLine("ssh-ed25519", blob, comment)},
		{keyFile("ecdsa"), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), publicLine("ecdsa-sha2-nistp256", curveBlob, comment)},
	}, nil
}

// sshStrings puts strings one after another as RFC 4251 does.
func sshStrings(parts ...[]byte) []byte {
	var b []byte
	for _, p := range parts {
		b = binary.BigEndian.AppendUint32(b, uint32(len(p)))
		b = append(b, p...)
	}
	return b
}

func publicLine(kind string, blob []byte, comment string) []byte {
	return fmt.Appendf(nil, "%s %s %s\n", kind, base64.StdEncoding.EncodeToString(blob), comment)
}

// opensshKey is an ed25519 key without a passphrase, as PROTOCOL.key of OpenSSH says.
func opensshKey(public, private []byte, comment string, check uint32) []byte {
	secret := binary.BigEndian.AppendUint32(nil, check)
	secret = binary.BigEndian.AppendUint32(secret, check)
	secret = append(secret, public...)
	secret = append(secret, sshStrings(private, []byte(comment))...)
	for i := byte(1); len(secret)%8 != 0; i++ { // the block size of the cipher "none"
		secret = append(secret, i)
	}
	b := append([]byte("openssh-key-v1\x00"), sshStrings([]byte("none"), []byte("none"), nil)...)
	b = binary.BigEndian.AppendUint32(b, 1) // keys
	b = append(b, sshStrings(public, secret)...)
	return pem.EncodeToMemory(&pem.Block{Type: "OPENSSH PRIVATE KEY", Bytes: b})
}
