package arch

import (
	"fmt"
	"go/ast"
	"slices"
	"strings"
	"testing"
)

const (
	maxFileLines = 500 // wished: 300
	maxFuncLines = 80  // wished: 40
	maxMethods   = 4
)

func TestFilesAndFunctionsAreShort(t *testing.T) {
	for _, f := range repository(t).code {
		wantNone(t, sizeComplaints(f))
	}
}

func TestInterfacesHaveFewMethods(t *testing.T) {
	wantNone(t, interfaceComplaints(repository(t).code))
}

func TestEveryPackageHasExactlyOnePackageComment(t *testing.T) {
	wantNone(t, commentComplaints(repository(t).code))
}

func TestNamesSayWhatIsInside(t *testing.T) {
	for _, f := range repository(t).code {
		wantNone(t, nameComplaints(f))
	}
}

func sizeComplaints(f goFile) (complaints []string) {
	if f.made {
		return nil
	}
	if f.lines > maxFileLines {
		complaints = append(complaints, fmt.Sprintf("%s has %d lines, at most %d", f.path, f.lines, maxFileLines))
	}
	ast.Inspect(f.syntax, func(n ast.Node) bool {
		name := ""
		switch n := n.(type) {
		case *ast.FuncDecl:
			name = n.Name.Name
		case *ast.FuncLit:
			name = "a function literal"
		default:
			return true
		}
		if h := f.height(n); h > maxFuncLines {
			complaints = append(complaints, fmt.Sprintf("%s: %s has %d lines, at most %d", f.at(n), name, h, maxFuncLines))
		}
		return true
	})
	return complaints
}

// interfaceComplaints counts what an interface embeds of its own package, and
// anything else that it embeds as one.
func interfaceComplaints(code []goFile) (complaints []string) {
	named := map[string]*ast.InterfaceType{} // directory and name
	for _, f := range code {
		for _, decl := range f.syntax.Decls {
			gen, ok := decl.(*ast.GenDecl)
			if !ok {
				continue
			}
			for _, spec := range gen.Specs {
				if ts, ok := spec.(*ast.TypeSpec); ok {
					if it, ok := ts.Type.(*ast.InterfaceType); ok {
						named[f.dir+"."+ts.Name.Name] = it
					}
				}
			}
		}
	}
	for _, f := range code {
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			if it, ok := n.(*ast.InterfaceType); ok && !f.made {
				if m := methods(it, f.dir, named, 0); m > maxMethods {
					complaints = append(complaints, fmt.Sprintf("%s: interface with %d methods, at most %d", f.at(it), m, maxMethods))
				}
			}
			return true
		})
	}
	return complaints
}

func methods(it *ast.InterfaceType, dir string, named map[string]*ast.InterfaceType, depth int) int {
	n := 0
	for _, field := range it.Methods.List {
		switch typ := field.Type.(type) {
		case *ast.FuncType:
			n += len(field.Names)
		case *ast.Ident:
			if other := named[dir+"."+typ.Name]; other != nil && depth < 10 {
				n += methods(other, dir, named, depth+1)
			} else {
				n++
			}
		case *ast.SelectorExpr:
			n++
		}
	}
	return n
}

func commentComplaints(code []goFile) (complaints []string) {
	have := map[string][]string{}
	onlyTests := map[string]bool{}
	for _, f := range code {
		if _, seen := onlyTests[f.dir]; !seen {
			onlyTests[f.dir] = true
		}
		onlyTests[f.dir] = onlyTests[f.dir] && f.test
	}
	for _, f := range code {
		if _, seen := have[f.dir]; !seen {
			have[f.dir] = nil
		}
		if f.syntax.Doc == nil || f.test && !onlyTests[f.dir] {
			continue
		}
		have[f.dir] = append(have[f.dir], f.path)
		text, name := f.syntax.Doc.Text(), f.syntax.Name.Name
		if !strings.HasPrefix(text, "Package "+name+" ") && !(name == "main" && strings.HasPrefix(text, "Command ")) {
			complaints = append(complaints, fmt.Sprintf("%s: the package comment does not begin with %q", f.path, "Package "+name))
		}
	}
	for dir, files := range have {
		if len(files) != 1 {
			complaints = append(complaints, fmt.Sprintf("package %s has %d package comments, needs one: %v", dir, len(files), files))
		}
	}
	return complaints
}

// empty names attract everything that has no place.
var emptyNames = []string{"util", "utils", "common", "helper", "helpers", "misc", "types", "base", "pkg"}

func nameComplaints(f goFile) []string {
	var complaints []string
	parts := strings.Split(f.path, "/")
	for i, part := range parts {
		part = strings.TrimSuffix(strings.TrimSuffix(part, ".go"), "_test")
		// types.go in a package is a habit like any other; a package types is not.
		if part == "types" && i == len(parts)-1 {
			continue
		}
		if slices.Contains(emptyNames, part) {
			complaints = append(complaints, fmt.Sprintf("%s: %q says nothing", f.path, part))
		}
	}
	return complaints
}
