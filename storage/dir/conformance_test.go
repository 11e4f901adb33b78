package dir_test

import (
	"testing"

	"github.com/ctctl/ctctl/internal/testutil"
	"github.com/ctctl/ctctl/storage"
	"github.com/ctctl/ctctl/storage/dir"
	"github.com/ctctl/ctctl/storage/storagetest"
)

func TestMain(m *testing.M) { testutil.Main(m) }

func TestVolumesInDirectoriesKeepTheContract(t *testing.T) {
	testutil.Require(t, testutil.Root)
	storagetest.Run(t, func(t *testing.T) storage.Volumes { return open(t, testutil.TempDir(t)) })
}

func open(t *testing.T, root string) *dir.Driver {
	t.Helper()
	d, err := dir.Open(t.Context(), dir.Options{Root: root})
	if err != nil {
		t.Fatal(err)
	}
	return d
}
