package dir_test

import (
	"testing"

	"github.com/ctctl/ctctl/internal/testutil"
	"github.com/ctctl/ctctl/storage/dir"
	"github.com/ctctl/ctctl/storage/storagetest"
)

func BenchmarkVolumes(b *testing.B) {
	testutil.Require(b, testutil.Root)
	d, err := dir.Open(b.Context(), dir.Options{Root: testutil.TempDir(b)})
	if err != nil {
		b.Fatal(err)
	}
	storagetest.Bench(b, d)
}
