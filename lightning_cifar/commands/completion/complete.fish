# Completes lightning-cifar, without starting it. Written by: lightning-cifar completion

function __lightning_cifar_groups --description 'of command 1'
    switch $argv[1]
@groups@
    end
end

function __lightning_cifar_options --description 'of group 1'
    switch $argv[1]
@options@
    end
end

function __lightning_cifar_values --description 'what follows option 2 of group 1: kind, whether many, words'
    switch "$argv[1] $argv[2]"
@values@
        case '*'
            return 1
    end
end

function __lightning_cifar_look --description 'the same of option 1 in the groups that follow'
    for group in $argv[2..-1]
        __lightning_cifar_values "$group" "$argv[1]"; and return
    end
    printf '%s\n' any no
    return 1
end

function __lightning_cifar_offer --description 'words, or paths, of kind 2 that complete 3, after the head 1'
    set -l found
    switch $argv[2]
        case words
            set found $argv[4..-1]
        case file
            set found (__fish_complete_path "$argv[3]")
        case folder
            set found (__fish_complete_directories "$argv[3]")
        case yaml
            set found (__fish_complete_path "$argv[3]" | string match --regex '^[^\t]*(?:/|\.ya?ml)(?:\t.*)?$')
    end
    for each in $found
        printf '%s%s\n' $argv[1] $each
    end
end

function __lightning_cifar
    set -l cur (commandline --current-token)
    set -l words (commandline --cut-at-cursor --current-process --tokenize)
    set -l command
    set -l active
    set -l look any no
    set -l groups
    for word in $words[2..-1]
        if test -z "$command"
            string match --quiet -- '-*' $word; and continue
            set command $word
            set groups (__lightning_cifar_groups $word)
            continue
        end
        set -l option $active
        set -l value $word
        if string match --quiet --regex -- '^-[^0-9]' $word
            set active
            if string match --quiet -- '*=*' $word
                set option (string replace --regex '=.*' '' -- $word)
                set value (string replace --regex '^[^=]*=' '' -- $word)
            else
                set look (__lightning_cifar_look $word $groups)
                test "$look[1]" != flag; and set active $word
                continue
            end
        else if test "$look[2]" = no
            set active
        end
        # A class: its group takes the place of that of all classes.
        set -l place (string replace --regex -- '^--(.*?)\+?$' '$1' "$option"):
        set -l kept
        for group in $groups
            if string match --quiet -- "$place*" $group
                set -a kept $place(string replace --regex -- '.*\.' '' $value)
            else
                set -a kept $group
            end
        end
        set groups $kept
    end
    if test -z "$command"
        printf '%s\n' @commands@
        __lightning_cifar_options ''
    else if string match --quiet --regex -- '^-.*=' $cur
        set -l head (string replace --regex '=.*' '' -- $cur)
        set look (__lightning_cifar_look $head $groups)
        __lightning_cifar_offer $head= $look[1] (string replace --regex '^[^=]*=' '' -- $cur) $look[3..-1]
    else if test -n "$active"; and not begin; test "$look[2]" = yes; and string match --quiet -- '-*' $cur; end
        set look (__lightning_cifar_look $active $groups)
        __lightning_cifar_offer '' $look[1] "$cur" $look[3..-1]
    else
        set look (__lightning_cifar_look '' $groups)
        if string match --quiet -- '-*' $cur; or test "$look[1]" = any
            for group in $groups
                __lightning_cifar_options $group
            end
        else
            __lightning_cifar_offer '' $look[1] "$cur" $look[3..-1]
        end
    end
end

complete --command lightning-cifar --no-files --arguments '(__lightning_cifar)'
