package checkpoint

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"testing"
)

func TestTheDigestIsThatOfTheContentOrOfTheSumsOfItsChunks(t *testing.T) {
	dir := t.TempDir()
	big := bytes.Repeat([]byte("0123456789abcdef"), chunk/16+1)
	small := []byte("small")
	for name, b := range map[string][]byte{"empty": nil, "small": small, "full": big[:chunk], "big": big} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	of := func(b []byte) string { s := sha256.Sum256(b); return hex.EncodeToString(s[:]) }
	first, rest := sha256.Sum256(big[:chunk]), sha256.Sum256(big[chunk:])
	want := []string{of(nil), of(small), of(big[:chunk]), of(append(first[:], rest[:]...))}
	got, err := digests(context.Background(), dir, []string{"empty", "small", "full", "big"})
	if err != nil {
		t.Fatal(err)
	}
	for i := range want {
		if got[i].SHA256 != want[i] {
			t.Errorf("%s: want %s, got %s", got[i].Name, want[i], got[i].SHA256)
		}
	}
}

func TestADigestOfWhatIsNotThereIsAnError(t *testing.T) {
	if _, err := digests(context.Background(), t.TempDir(), []string{"a"}); !os.IsNotExist(err) {
		t.Errorf("got %v", err)
	}
}
