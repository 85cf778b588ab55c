#!/bin/sh
# Installs the agent of Komainu on this server and enrols it, for people, for
# cloud-init and for Ansible. It talks to the control plane of the join token
# and to nobody else.
#
# It trusts the token: that carries the hash of the key of the control plane's
# CA. The CA is fetched and compared with it; from then on only what the CA
# vouches for is believed. What is done on the host is done by the same script
# that connectors run.

set -u
PATH=/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin
LC_ALL=C
export PATH LC_ALL
umask 077

dir=
token=
image=no
force=no
despite=no
remove=no
patience=60

usage() {
    cat <<'END'
usage: sh install [OPTION]... TOKEN
       sh install [OPTION]... --token-file FILE
       sh install --uninstall

Installs the Komainu agent on this server and enrols it with a join token.
It may be run again: what is right already is left alone.

  --token-file FILE  read the token from a file; - is standard input
  --image            prepare a golden image: each copy enrols at its first boot
  --force            enrol anew, also from another control plane
  --despite-conflict also beside another product that decides on file accesses
  --patience SECONDS how long to wait for a package manager that is busy (60)
  --uninstall        remove the agent with everything that it keeps

Exit codes: 0 done, 1 failed, 2 usage, 3 needs root, 4 the control plane cannot
be reached, 6 refused (token or trust), 7 not supported on this server.
END
}

has() { command -v "$1" >/dev/null 2>&1; }

clean() { [ -z "$dir" ] || rm -rf "$dir"; }

# stop ends with an exit code, what happened, and what to do.
stop() {
    printf 'komainu: %s\n' "$2" >&2
    [ -z "${3:-}" ] || printf 'What to do: %s.\n' "$3" >&2
    exit "$1"
}

# problem ends with a reason of the catalogue.
problem() {
    reason "$1"
    stop "$code" "$text${2:+ ($2)}." "$remedy"
}

# reason finds text, remedy and exit code of a reason.
reason() {
    case "$1" in
@REASONS@
    *) text="the host script answers with $1" remedy='report it' code=1 ;;
    esac
}

# host_script writes the script that does the work.
host_script() {
    cat >"$dir/host.sh" <<'KOMAINU_HOST_SCRIPT'
@HOST@
KOMAINU_HOST_SCRIPT
}

# understand takes a join token apart: where the control plane is, and what
# the key of its CA hashes to.
understand() {
    body=${token#kmj1.}
    [ "$body" != "$token" ] || stop 2 "this is no join token: those begin with kmj1." 'copy the whole token from the portal'
    body=$(printf '%s' "$body" | tr '_-' '/+')
    while [ $((${#body} % 4)) -ne 0 ]; do body="$body="; done
    body=$(printf '%s' "$body" | base64 -d 2>/dev/null)
    server=$(printf '%s\n' "$body" | sed -n 's/.*"s":"\(https:[^"]*\)".*/\1/p')
    pin=$(printf '%s\n' "$body" | sed -n 's/.*"p":"\([0-9a-f]*\)".*/\1/p')
    server=${server%/}
    case "${server#https://}" in
    '' | *[!]A-Za-z0-9.:_[-]*) pin= ;;
    esac
    [ ${#pin} = 64 ] || stop 2 'the join token is damaged' 'copy the whole token from the portal'
    address=${server#https://}
    case "$address" in
    *]) address=$address:443 ;;
    *:*) ;;
    *) address=$address:443 ;;
    esac
}

# get fetches FILE from PATH of the control plane, with a file to send.
get() {
    if has curl; then
        set -- "$1" "$2" "${3:-}" -fsS --connect-timeout 10 -m 60 --retry 2
        [ -z "$3" ] || set -- "$@" -H 'Content-Type: text/plain' --data-binary "@$3"
        if [ -e "$dir/ca.pem" ]; then set -- "$@" --cacert "$dir/ca.pem" --capath "$dir/none"; else set -- "$@" -k; fi
        file=$1 path=$2
        shift 3
        curl "$@" -o "$file" "$server$path" 2>"$dir/log"
        case $? in
        0) return ;;
        6 | 7 | 28 | 35 | 52 | 56) problem unreachable_control_plane "$(tail -n 1 "$dir/log")" ;;
        51 | 60) untrusted ;;
        *) problem transfer_failed "$(tail -n 1 "$dir/log")" ;;
        esac
    elif has wget; then
        set -- "$1" "$2" "${3:-}" -nv -T 60 -t 3
        [ -z "$3" ] || set -- "$@" --header 'Content-Type: text/plain' --post-file "$3"
        if [ -e "$dir/ca.pem" ]; then set -- "$@" --ca-certificate "$dir/ca.pem" --ca-directory "$dir/none"; else set -- "$@" --no-check-certificate; fi
        file=$1 path=$2
        shift 3
        wget "$@" -O "$file" "$server$path" 2>"$dir/log"
        case $? in
        0) return ;;
        4) problem unreachable_control_plane "$(tail -n 1 "$dir/log")" ;;
        5) untrusted ;;
        *) problem transfer_failed "$(tail -n 1 "$dir/log")" ;;
        esac
    else
        stop 7 'neither curl nor wget is installed' 'install one of them'
    fi
}

untrusted() {
    stop 6 "$address does not show a certificate of the CA that the token names: $(tail -n 1 "$dir/log")" 'see whether the clock of this server is right, and whether something stands between it and the control plane'
}

# key_of prints the hash of the public key of a certificate in DER form, as
# the token names it. It walks over what comes before the key, so that a key
# that is only mentioned somewhere in a certificate is not taken for its own.
key_of() {
    place=$(od -An -v -tu1 "$1" | awk '
        { for (i = 1; i <= NF; i++) byte[n++] = $i + 0 }
        # measure finds where the content of the element at a place begins and ends.
        function measure(at,    count, i) {
            if (at + 1 >= n) exit
            from = at + 2
            size = byte[at + 1]
            if (size > 127) {
                count = size - 128
                if (count < 1 || count > 3) exit
                size = 0
                for (i = 0; i < count; i++) size = size * 256 + byte[from + i]
                from += count
            }
            to = from + size
            if (to > n) exit
        }
        function want(at, tag) { if (byte[at] != tag) exit }
        END {
            want(0, 48); measure(0)             # the certificate
            want(from, 48); measure(from)       # what is signed
            at = from
            if (byte[at] == 160) { measure(at); at = to } # version
            want(at, 2); measure(at); at = to   # serial number
            for (skip = 0; skip < 4; skip++) {  # algorithm, issuer, validity, subject
                want(at, 48); measure(at); at = to
            }
            want(at, 48); measure(at)
            print at + 1, to - at
        }')
    [ -n "$place" ] || return 1
    tail -c "+${place% *}" "$1" | head -c "${place#* }" | sha256sum | cut -d' ' -f1
}

# trust finds the CA that the token names among those of the control plane.
trust() {
    get "$dir/all.pem" /ca.pem
    mkdir "$dir/none"
    awk -v dir="$dir" '/^-----BEGIN CERTIFICATE-----/ { n++; if (n > 8) exit } n { print >(dir "/ca-" n) }' "$dir/all.pem"
    for one in "$dir"/ca-*; do
        [ -e "$one" ] || continue
        sed '/^-----/d' "$one" | base64 -d >"$dir/der" 2>/dev/null || continue
        if [ "$(key_of "$dir/der")" = "$pin" ]; then
            mv "$one" "$dir/ca.pem"
            return
        fi
    done
    stop 6 "$address is not the control plane of the join token: its CA is another one. Nothing was sent to it" 'compare the token with the portal; if it is right, something stands between this server and the control plane'
}

# plan asks the control plane what is to be done here.
plan() {
    sh "$dir/host.sh" facts "server=$address" </dev/null >"$dir/facts" 2>"$dir/log" || stop 1 "this server cannot be looked at: $(tail -n 1 "$dir/log")"
    get "$dir/plan" "/install/plan?image=$image&force=$force&despiteConflict=$despite" "$dir/facts"
    enrol=yes version= package= device=
    while IFS= read -r line; do
        rest=${line#* }
        case "$line" in
        "fail "*)
            detail=${rest#* }
            [ "$detail" != "$rest" ] || detail=
            problem "${rest%% *}" "$detail"
            ;;
        "package "*) package=$rest ;;
        "version "*) version=$rest ;;
        "enrol "*) enrol=$rest ;;
        "device "*) device=$rest ;;
        "note "*) printf '%s\n' "$rest" ;;
        esac
    done <"$dir/plan"
}

# follow tells people how the host script gets on, and keeps how it ended.
follow() {
    waits=
    while IFS= read -r line; do
        line=${line#komainu:}
        case "$line" in
        'step transfer') echo "Fetching the agent $version ..." ;;
        'step install') echo 'Installing it ...' ;;
        'step enrol') echo 'Enrolling this server ...' ;;
        'step remove') echo 'Removing the agent ...' ;;
        'wait '*)
            [ "$line" = "$waits" ] || echo "Waiting for ${line#wait } ..."
            waits=$line # it is said every second
            ;;
        'fail '*) [ -e "$dir/fail" ] || printf '%s\n' "${line#fail }" >"$dir/fail" ;;
        done*) printf '%s\n' "${line#done}" >"$dir/done" ;;
        esac
    done
}

# ended says how the host script ended, when it did not end well.
ended() {
    if [ -e "$dir/fail" ]; then
        read -r id detail <"$dir/fail"
        problem "$id" "$detail"
    fi
    [ -e "$dir/done" ] || stop 1 "the installation broke off: $(tail -n 1 "$dir/log" 2>/dev/null)" 'run it again'
}

put_in() {
    understand
    trust
    plan
    if [ -z "$package" ] && [ "$enrol" = no ]; then
        echo "The agent $version is installed, runs and is enrolled as device $device. Nothing was changed."
        return
    fi
    [ "$enrol" = no ] || set -- "$@" token=-
    for word in $package; do
        case "$word" in path=*) set -- "$@" "url=$server${word#path=}" ;; *) set -- "$@" "$word" ;; esac
    done
    printf '%s\n' "$token" | sh "$dir/host.sh" install "enrol=$enrol" "ca=$dir/ca.pem" "patience=$patience" "$@" 2>"$dir/log" | follow
    ended
    read -r version device <"$dir/done"
    if [ "$image" = yes ]; then
        echo "The agent $version is installed and has no identity: shut this machine down and make the image of it. Each copy enrols itself at its first boot."
    else
        echo "The agent $version is installed and enrolled as device $device. It gets its policy from $address; komainu health shows how it is."
    fi
}

take_out() {
    sh "$dir/host.sh" remove "patience=$patience" </dev/null 2>"$dir/log" | follow
    ended
    echo 'The agent is removed.'
}

main() {
    while [ $# -gt 0 ]; do
        case "$1" in
        --help | -h) usage && exit 0 ;;
        --image) image=yes ;;
        --force) force=yes ;;
        --despite-conflict) despite=yes ;;
        --uninstall) remove=yes ;;
        --token-file)
            [ $# -gt 1 ] || stop 2 '--token-file needs the name of a file'
            shift
            if [ "$1" = - ]; then
                IFS= read -r token
            else
                token=$(cat "$1") || stop 2 "the token cannot be read from $1"
            fi
            ;;
        --patience)
            case "${2:-}" in '' | *[!0-9]* | 0?* | ???????*) stop 2 '--patience needs a number of seconds' ;; esac
            shift
            patience=$1
            ;;
        -*) stop 2 "$1 is not known; --help lists what is" ;;
        *)
            [ -z "$token" ] || stop 2 'one token is enough'
            token=$1
            ;;
        esac
        shift
    done
    [ -n "$token" ] || [ "$remove" = yes ] || { usage >&2 && exit 2; }
    [ "$(id -u)" = 0 ] || stop 3 "this needs root, and you are $(id -un)." 'run it with sudo'
    has systemctl || problem no_systemd
    # Nothing is executed from this folder: it may be mounted noexec.
    dir=$(mktemp -d /var/tmp/komainu-install.XXXXXX) || problem disk_full 'no folder can be made in /var/tmp'
    trap clean EXIT
    trap 'exit 1' HUP INT TERM
    host_script
    if [ "$remove" = yes ]; then take_out; else put_in; fi
}

# The last line: what has come in part does nothing.
main "$@"
