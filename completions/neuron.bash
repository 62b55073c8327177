# shellcheck shell=bash
# Completion of neuron, by the program itself. A word with colons is one word here, whatever COMP_WORDBREAKS says.
_neuron_completion() {
    local line=${COMP_LINE:0:COMP_POINT} count words word
    read -ra words <<<"$line"
    count=${#words[@]}
    [[ $line == *[[:space:]] ]] || count=$((count - 1))
    word=${words[count]-}
    mapfile -t COMPREPLY < <(
        env COMP_WORDS="$line" COMP_CWORD="$count" _NEURON_COMPLETE=complete_bash "$1" 2>/dev/null
    )
    if [[ $word == *:* && $COMP_WORDBREAKS == *:* ]]; then
        COMPREPLY=("${COMPREPLY[@]#"${word%"${word##*:}"}"}")
    fi
}

complete -o default -F _neuron_completion neuron
