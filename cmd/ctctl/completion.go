package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

func completionCommand() *cli.Command {
	return &cli.Command{
		Name: "completion", Usage: "print a completion script for a shell", ArgsUsage: "bash|zsh|fish",
		Description: "The script asks ctctl what may come next, and so knows which containers are stopped, suspended, …\n" +
			"bash: ctctl completion bash > /etc/bash_completion.d/ctctl\n" +
			"zsh:  ctctl completion zsh > /usr/local/share/zsh/site-functions/_ctctl\n" +
			"fish: ctctl completion fish > /etc/fish/completions/ctctl.fish",
		Action: func(c *cli.Context) error {
			args, err := arguments(c, 1, 1)
			if err != nil {
				return err
			}
			script, ok := completionScripts[args[0]]
			if !ok {
				var known []string
				for s := range completionScripts {
					known = append(known, s)
				}
				slices.Sort(known)
				return misuse(c, "%s is none of %s", quoteWord(args[0]), strings.Join(known, ", "))
			}
			_, err = fmt.Fprint(c.App.Writer, script)
			return err
		},
	}
}

// The scripts give the words so far to ctctl __complete. Each line it answers is a
// word, with a tab and an explanation behind it; the last one, with a colon before
// it, says whether files or directories fit too.
var completionScripts = map[string]string{
	"bash": `# bash completion for ctctl
_ctctl() {
    local line files=none word tab=$'\t'
    COMPREPLY=()
    while IFS= read -r line; do
        case $line in
        :*) files=${line#:} ;;
        *) COMPREPLY+=("${line%%"$tab"*}") ;;
        esac
    done < <("${COMP_WORDS[0]}" __complete bash -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
    word=${COMP_WORDS[COMP_CWORD]}
    [[ $word == [=:] ]] && word=
    case $files in
    file) compopt -o filenames 2>/dev/null
        while IFS= read -r line; do COMPREPLY+=("$line"); done < <(compgen -f -- "$word") ;;
    dir) compopt -o filenames 2>/dev/null
        while IFS= read -r line; do COMPREPLY+=("$line"); done < <(compgen -d -- "$word") ;;
    esac
    [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *: ]] && compopt -o nospace 2>/dev/null
    return 0
}
complete -F _ctctl ctctl
`,
	"zsh": `#compdef ctctl
_ctctl() {
    local line word files=none tab=$'\t'
    local -a proposals
    while IFS= read -r line; do
        case $line in
        :*) files=${line#:} ;;
        *$tab*) word=${line%%$tab*}; proposals+=("${word//:/\\:}:${line#*$tab}") ;;
        *) proposals+=("${line//:/\\:}") ;;
        esac
    done < <("${words[1]}" __complete zsh -- "${(@)words[2,CURRENT]}" 2>/dev/null)
    (( ${#proposals} )) && _describe ctctl proposals
    case $files in
    file) _files ;;
    dir) _files -/ ;;
    esac
}
if [ "$funcstack[1]" = _ctctl ]; then
    _ctctl "$@"
else
    compdef _ctctl ctctl
fi
`,
	"fish": `# fish completion for ctctl
function __ctctl_complete
    set -l words (commandline -opc) (commandline -ct)
    for line in ($words[1] __complete fish -- $words[2..-1] 2>/dev/null)
        switch $line
            case ':file'
                __fish_complete_path (commandline -ct)
            case ':dir'
                __fish_complete_directories (commandline -ct)
            case ':*'
            case '*'
                printf '%s\n' $line
        end
    end
end
complete -c ctctl -f -a '(__ctctl_complete)'
`,
}
