package container

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
)

// A patch is the difference of two JSON objects as another one: members that are
// new or different with their value, absent ones with null (RFC 7396). Of the
// lists in patchedSets it has the elements that came and went, so that two
// patches can each add an address and either be taken away again.
type patch = map[string]any

// patchedSets are lists whose elements have a name, or are their own.
var patchedSets = map[string]bool{"interfaces": true, "addresses": true, "routes": true, "forwards": true, "io": true}

// The members of the patch of a set.
const (
	setAdd    = "+" // elements
	setRemove = "-" // keys
	setChange = "~" // patches by key
)

// treeOf gives v as JSON sees it; numbers keep all their digits.
func treeOf(v any) (map[string]any, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return parseTree(b)
}

func parseTree(b []byte) (map[string]any, error) {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	var t map[string]any
	if err := dec.Decode(&t); err != nil {
		return nil, err
	}
	return t, nil
}

// difference is the patch that makes b of a.
func difference(a, b map[string]any) patch {
	p := patch{}
	for k, was := range a {
		if _, there := b[k]; !there && !patchedSets[k] {
			p[k] = nil
			continue
		}
		if d, differs := differenceOf(k, was, b[k]); differs {
			p[k] = d
		}
	}
	for k, is := range b {
		if _, there := a[k]; there {
			continue
		}
		if d, differs := differenceOf(k, nil, is); differs {
			p[k] = d
		}
	}
	return p
}

func differenceOf(key string, was, is any) (any, bool) {
	if patchedSets[key] {
		before, _ := was.([]any)
		after, _ := is.([]any)
		d := differenceOfSets(before, after)
		return d, len(d) > 0
	}
	before, ok1 := was.(map[string]any)
	after, ok2 := is.(map[string]any)
	if ok1 && ok2 {
		d := difference(before, after)
		return d, len(d) > 0
	}
	return is, !reflect.DeepEqual(was, is)
}

func differenceOfSets(a, b []any) patch {
	p := patch{}
	var add, remove []any
	change := patch{}
	for _, e := range a {
		if at := indexOf(b, keyOf(e)); at < 0 {
			remove = append(remove, keyOf(e))
		} else if d, differs := differenceOf("", e, b[at]); differs {
			change[keyOf(e)] = d
		}
	}
	for _, e := range b {
		if indexOf(a, keyOf(e)) < 0 {
			add = append(add, e)
		}
	}
	if len(add) > 0 {
		p[setAdd] = add
	}
	if len(remove) > 0 {
		p[setRemove] = remove
	}
	if len(change) > 0 {
		p[setChange] = change
	}
	return p
}

// keyOf tells an element of a set from the others.
func keyOf(e any) string {
	switch e := e.(type) {
	case string:
		return e
	case map[string]any:
		for _, member := range []string{"name", "device"} {
			if name, ok := e[member].(string); ok {
				return name
			}
		}
	}
	b, err := json.Marshal(e) // members sorted
	if err != nil {
		return fmt.Sprint(e)
	}
	return string(b)
}

func indexOf(set []any, key string) int {
	return slices.IndexFunc(set, func(e any) bool { return keyOf(e) == key })
}

// patched is a with a patch put onto it; a stays as it is.
func patched(a map[string]any, p patch) map[string]any {
	out := map[string]any{}
	for k, v := range a {
		out[k] = v
	}
	for k, v := range p {
		sub, isPatch := v.(map[string]any)
		switch {
		case v == nil:
			delete(out, k)
		case patchedSets[k] && isPatch:
			before, _ := out[k].([]any)
			if out[k] = patchedSet(before, sub); len(out[k].([]any)) == 0 {
				delete(out, k)
			}
		case isPatch:
			before, _ := out[k].(map[string]any)
			out[k] = patched(before, sub)
		default:
			out[k] = v
		}
	}
	return out
}

func patchedSet(a []any, p patch) []any {
	change, _ := p[setChange].(map[string]any)
	remove, _ := p[setRemove].([]any)
	add, _ := p[setAdd].([]any)
	out := []any{}
	for _, e := range a {
		key := keyOf(e)
		if slices.Contains(remove, any(key)) {
			continue
		}
		before, isMap := e.(map[string]any)
		if sub, ok := change[key].(map[string]any); ok && isMap {
			e = patched(before, sub)
		}
		out = append(out, e)
	}
	for _, e := range add {
		if at := indexOf(out, keyOf(e)); at >= 0 {
			out[at] = e
		} else {
			out = append(out, e)
		}
	}
	return out
}

// without is a patch that leaves alone what other touches.
func without(p, other patch) patch {
	out := patch{}
	for k, v := range p {
		touched, is := other[k]
		if !is {
			out[k] = v
			continue
		}
		mine, ok1 := v.(map[string]any)
		its, ok2 := touched.(map[string]any)
		if !ok1 || !ok2 {
			continue
		}
		rest := without
		if patchedSets[k] {
			rest = setWithout
		}
		if rest := rest(mine, its); len(rest) > 0 {
			out[k] = rest
		}
	}
	return out
}

func setWithout(p, other patch) patch {
	var touched []string
	for _, e := range list(other[setAdd]) {
		touched = append(touched, keyOf(e))
	}
	for _, e := range list(other[setRemove]) {
		touched = append(touched, keyOf(e))
	}
	out := patch{}
	for _, part := range []string{setAdd, setRemove} {
		rest := slices.DeleteFunc(slices.Clone(list(p[part])), func(e any) bool { return slices.Contains(touched, keyOf(e)) })
		if len(rest) > 0 {
			out[part] = rest
		}
	}
	mine, _ := p[setChange].(map[string]any)
	its, _ := other[setChange].(map[string]any)
	change := without(mine, its)
	for _, key := range touched {
		delete(change, key)
	}
	if len(change) > 0 {
		out[setChange] = change
	}
	return out
}

func list(v any) []any {
	l, _ := v.([]any)
	return l
}
