// Package storagetest is the suite that every storage driver passes. What a
// driver promises beyond it, it tests itself.
package storagetest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/ctctl/ctctl/storage"
)

// Run tests the driver that open returns: a store of its own for each call,
// empty, and cleaned up with t. It needs root, as real volumes hold files of
// all owners.
func Run(t *testing.T, open func(t *testing.T) storage.Volumes) {
	t.Helper()
	cases := []struct {
		name string
		run  func(t *testing.T, v storage.Volumes)
	}{
		{"AnEmptyVolumeIsAnEmptyDirectoryThatEverybodyMayEnter", emptyVolume},
		{"ACopyEqualsItsOriginInContentAndMetadata", copyEquals},
		{"ASnapshotEqualsItsSourceInContentAndMetadata", snapshotEquals},
		{"ACopyAndItsOriginChangeIndependently", copyIndependent},
		{"ASnapshotStaysAsItWasWhenItsSourceChangesAndGoes", snapshotFrozen},
		{"ACopyOfASnapshotCanBeWritten", copyOfSnapshot},
		{"ADeepTreeIsCopiedAndDeleted", deepTree},
		{"DeleteOfAnAbsentVolumeIsNotAnError", deleteAbsent},
		{"ADeletedNameCanBeUsedAgain", deleteThenCreate},
		{"DeleteLeavesAloneWhatIsMountedInside", deleteMounted},
		{"AnExistingVolumeIsNeverReplaced", existing},
		{"AnAbsentOriginIsAnErrorAndMakesNothing", absentOrigin},
		{"BadNamesAreRefusedEverywhere", badNames},
		{"ACancelledContextMakesNothing", cancelled},
		{"OfTwoCreatesOfOneNameExactlyOneSucceeds", sameNameRace},
		{"ManyVolumesAreMadeAndDeletedAtOnce", manyAtOnce},
		{"ListNamesVolumesInOrderWithTheirGroups", list},
		{"LeftoversOfACrashAreNotListedAndNotInTheWay", leftovers},
		{"CapacityFallsWhenDataIsWritten", capacity},
		{"FlushKnowsItsVolumes", flush},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) { c.run(t, open(t)) })
	}
	t.Run("Limits", func(t *testing.T) { runLimits(t, open) })
}

// runLimits tests drivers that have limits, unless this kernel hasn't.
func runLimits(t *testing.T, open func(t *testing.T) storage.Volumes) {
	for _, c := range limitCases {
		t.Run(c.name, func(t *testing.T) {
			v := open(t)
			l, ok := v.(storage.Limiter)
			if !ok {
				return
			}
			if err := l.SetLimit(t.Context(), 1, 0); errors.Is(err, storage.ErrUnsupported) {
				t.Skip(err)
			}
			c.run(t, v, l)
		})
	}
}

func create(t *testing.T, v storage.Volumes, name, origin string, group uint64) {
	t.Helper()
	must(t, v.Create(t.Context(), name, storage.CreateOptions{Origin: origin, Group: group}))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantIs(t *testing.T, err, target error) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Errorf("got error %v, want one that is %q", err, target)
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	must(t, os.WriteFile(path, []byte(content), 0o644))
}

func wantContent(t *testing.T, path, want string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil || string(b) != want {
		t.Errorf("%s holds %q (error %v), want %q", path, b, err, want)
	}
}

func in(v storage.Volumes, name string, path ...string) string {
	return filepath.Join(append([]string{v.Path(name)}, path...)...)
}

// wantAbsent checks that the volume can be neither seen nor listed.
func wantAbsent(t *testing.T, v storage.Volumes, name string) {
	t.Helper()
	if _, err := os.Lstat(v.Path(name)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("volume %s is there: %v", name, err)
	}
	for _, got := range listed(t, v) {
		if got.Name == name {
			t.Errorf("volume %s is listed", name)
		}
	}
}

func listed(t *testing.T, v storage.Volumes) []storage.Volume {
	t.Helper()
	l, ok := v.(storage.Lister)
	if !ok {
		return nil
	}
	got, err := l.List(context.WithoutCancel(t.Context()))
	must(t, err)
	return got
}
