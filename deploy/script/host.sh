#!/bin/sh
# What Komainu does on a Linux server before there is an agent on it: it looks,
# installs, and removes. It changes nothing but its own package, with which it
# removes the one that depends on it; no repository is added to the host, and no
# other package is touched.
#
# usage: host.sh ACTION [NAME=VALUE]...
#
# Lines that begin with "komainu:" are for the program that has sent the
# script: "fact NAME VALUE", "step NAME", "wait TEXT", "fail REASON DETAIL",
# "done VERSION DEVICE". After a line "fail" the exit code is 90.

set -u
PATH=/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin
LC_ALL=C
DEBIAN_FRONTEND=noninteractive
export PATH LC_ALL DEBIAN_FRONTEND
umask 077

package=komainu-agent
second=komainu-mdatp # the package of the agent's second name; it depends on the other
service=komainu-agent.service
state=/var/lib/komainu/agent
ready=/var/lib/komainu/agent-is-ready # its scripts write it, with the version that they have set up
upgrades=/var/lib/komainu/agent-upgrades-are-ready # they have set up the unit that starts upgrades
# What the package installs; a test compares.
files="/usr/bin/komainud /usr/bin/komainu /usr/lib/systemd/system/$service /usr/lib/systemd/system/komainu-upgrade.path
    /usr/lib/systemd/system/komainu-upgrade.service /usr/lib/sysusers.d/$package.conf
    /usr/share/doc/$package/copyright /usr/share/doc/$package/third-party-licences.txt.gz /usr/share/man/man8/komainu.8.gz
    /usr/share/bash-completion/completions/komainu /usr/share/fish/vendor_completions.d/komainu.fish
    /usr/share/zsh/vendor-completions/_komainu /usr/share/zsh/site-functions/_komainu"
work=

say() { printf 'komainu:%s\n' "$*"; }

# plain makes one short line of a text.
plain() { printf '%s' "$1" | tr '\n\r\t' '   ' | tr -d '\000-\037\177' | cut -c1-"${2:-300}"; }

fact() { say "fact $1 $(plain "$2")"; }

fail() {
    say "fail $1 $(plain "${2:-}" 600)"
    exit 90
}

clean() {
    [ -z "$work" ] || rm -rf "$work"
}

has() { command -v "$1" >/dev/null 2>&1; }

# manager prints what keeps the packages of this host. The program alone says
# little: dpkg can be installed where rpm rules, and the other way around.
manager() {
    if has dpkg && has dpkg-query && [ -s /var/lib/dpkg/status ]; then
        echo deb
    elif has rpm && [ -n "$(rpm -qa 2>&1 | head -n 1)" ]; then
        echo rpm # also one that only complains
    else
        echo tar
    fi
}

# holder prints who holds a lock file of the package manager.
holder() {
    for file in /var/lib/dpkg/lock-frontend /var/lib/dpkg/lock /var/lib/rpm/.rpm.lock /usr/lib/sysimage/rpm/.rpm.lock /run/dnf/rpmtransaction.lock; do
        [ -e "$file" ] || continue
        inode=$(stat -c %i "$file" 2>/dev/null) || continue
        pid=$(awk -v inode="$inode" '{ split($6, at, ":"); if (at[3] == inode && $2 != "->") { print $5; exit } }' /proc/locks 2>/dev/null)
        if [ -n "$pid" ]; then
            echo "$(cat "/proc/$pid/comm" 2>/dev/null || echo somebody), process $pid"
            return 0
        fi
    done
    return 1
}

# settled waits until nobody holds the package manager.
settled() {
    left=$1
    while who=$(holder); do
        [ "$left" -gt 0 ] || fail package_manager_busy "$who"
        say "wait $(plain "$who")"
        left=$((left - 1))
        sleep 1
    done
}

# others prints products that decide on file accesses, ours left out.
others() {
    for unit in falcon-sensor mdatp sentinelone cbdaemon cbagentd ds_agent sophos-spl mfetpd cortex-xdr traps_pmd eea clamav-clamonacc; do
        if [ "$(systemctl is-active "$unit" 2>/dev/null)" = active ]; then
            echo "$unit"
            return
        fi
    done
    # A group of the classes content (4) and pre-content (8) decides.
    find /proc/[0-9]*/fdinfo -type f -exec grep -s '^fanotify flags:' /dev/null {} + 2>/dev/null | while IFS= read -r line; do
        pid=${line#/proc/}
        pid=${pid%%/*}
        flags=${line##*fanotify flags:}
        flags=${flags%% *}
        case "$flags" in *[!0-9a-f]* | '') continue ;; esac
        [ $((0x$flags & 12)) -ne 0 ] || continue
        name=$(cat "/proc/$pid/comm" 2>/dev/null) || continue
        # Parts of the agent start one another by /proc/self/exe, which names
        # them exe; after an upgrade their program is a deleted one.
        case "$name $(readlink "/proc/$pid/exe" 2>/dev/null)" in "komainud "* | *" /usr/bin/komainud"*) continue ;; esac
        echo "$name, process $pid"
        break
    done
}

# installed prints the version of our package and its state.
installed() {
    case "$(manager)" in
    deb) dpkg-query -W -f '${db:Status-Status} ${Version}' "$package" 2>/dev/null | grep -v '^not-installed' ;;
    rpm) rpm -q --qf 'installed %{VERSION}-%{RELEASE}' "$package" 2>/dev/null | grep '^installed ' ;;
    *) [ -e /usr/lib/komainu/install.sh ] && sh /usr/lib/komainu/install.sh status | grep -v '^not ' ;;
    esac
}

# ours prints those of our packages that the package manager knows, in whatever
# state.
ours() {
    for one in "$second" "$package"; do
        case "$(manager)" in
        deb) case "$(dpkg-query -W -f '${db:Status-Status}' "$one" 2>/dev/null)" in '' | not-installed) ;; *) echo "$one" ;; esac ;;
        rpm) rpm -q "$one" >/dev/null 2>&1 && echo "$one" ;;
        *) [ "$one" = "$second" ] || [ -z "$(installed)" ] || echo "$one" ;;
        esac
    done
}

# complete reports whether the last installation came to its end.
complete() {
    case "$(installed)" in
    "installed "*) [ -n "$(cat "$ready" 2>/dev/null)" ] && [ "$(cat "$ready")" = "$(timeout 10 /usr/bin/komainud version 2>/dev/null)" ] ;;
    *) return 1 ;;
    esac
}

# running prints the version of the agent that runs, else of its binaries. An
# installation that did not come to its end has none, so that it is done again.
running() {
    complete || return
    versions=$(timeout 10 /usr/bin/komainu version -o json 2>/dev/null)
    for field in agent command; do
        version=$(printf '%s\n' "$versions" | sed -n "s/.*\"$field\": *\"\([^\"]*\)\".*/\1/p" | head -n 1)
        [ -z "$version" ] || break
    done
    echo "$version"
}

# device prints the id that the agent is enrolled as. One that does not run is
# read from what it keeps: a service that was stopped has its identity still.
device() {
    {
        if [ -x /usr/bin/komainu ]; then /usr/bin/komainu health --field edr_machine_id 2>/dev/null | tr -d '"' | head -n 1; fi
        sed -n 's/.*"device": *"\([^"]*\)".*/\1/p' "$state/identity.json" 2>/dev/null
    } | grep -E '^[0-9A-Za-z_-]{8,64}$' | head -n 1
}

# reach tries to connect to the control plane.
reach() {
    if has curl; then
        curl -ks -m 8 --connect-timeout 5 -o /dev/null "https://$1:$2/healthz"
        case $? in
        0 | 22 | 52) echo ok ;;
        6) echo "the name $1 is not known to DNS" ;;
        7) echo "nothing listens at $1:$2, or a firewall refuses it" ;;
        28) echo "no answer from $1:$2 within 5 s" ;;
        *) echo ok ;; # something answers; enrolment says what
        esac
    elif has bash && has timeout; then
        bare=${1#[} # bash takes an IPv6 address without brackets only
        # shellcheck disable=SC2016 # bash expands it
        if timeout 5 bash -c 'exec 3<>"/dev/tcp/$0/$1"' "${bare%]}" "$2" 2>/dev/null; then
            echo ok
        elif [ $? = 124 ]; then
            echo "no answer from $1:$2 within 5 s"
        else
            echo "$1:$2 cannot be connected to"
        fi
    else
        echo unknown
    fi
}

facts() {
    fact uid "$(id -u)"
    fact hostname "$(hostname 2>/dev/null || cat /proc/sys/kernel/hostname)"
    for file in /etc/os-release /usr/lib/os-release; do
        [ -r "$file" ] || continue
        fact os "$(sed -n 's/^ID=//p' "$file" | head -n 1 | tr -d "\"'")"
        fact os_version "$(sed -n 's/^VERSION_ID=//p' "$file" | head -n 1 | tr -d "\"'")"
        fact os_name "$(sed -n 's/^PRETTY_NAME=//p' "$file" | head -n 1 | tr -d "\"'")"
        fact os_like "$(sed -n 's/^ID_LIKE=//p' "$file" | head -n 1 | tr -d "\"'")"
        break
    done
    fact system "$(uname -s)"
    fact kernel "$(uname -r)"
    fact arch "$(uname -m)"
    if [ -d /run/systemd/system ]; then fact init systemd; else fact init "$(cat /proc/1/comm 2>/dev/null)"; fi
    has systemd-detect-virt && fact container "$(systemd-detect-virt --container 2>/dev/null)"
    fact memory_kb "$(awk '/^MemTotal:/ { print $2 }' /proc/meminfo 2>/dev/null)"
    # A filesystem of no size is one that does not say how large it is.
    fact var_kb "$(df -Pk /var 2>/dev/null | awk 'NR == 2 && $2 > 0 { print $4 }')"
    fact usr_kb "$(df -Pk /usr 2>/dev/null | awk 'NR == 2 && $2 > 0 { print $4 }')"
    fact clock "$(date +%s)"
    fact manager "$(manager)"
    if [ "$(manager)" = deb ] && ! dpkg-query -W -f x dpkg >/dev/null 2>&1; then fact manager_broken "$(dpkg-query -W -f x dpkg 2>&1)"; fi
    if [ "$(manager)" = rpm ] && ! rpm -qa >/dev/null 2>&1; then fact manager_broken "$(rpm -qa 2>&1 >/dev/null)"; fi
    fact busy "$(holder)"
    fact others "$(others)"
    fact package "$(installed)"
    fact agent "$(running)"
    fact service "$(systemctl is-active $service 2>/dev/null)"
    fact device "$(device)"
    [ -z "${server:-}" ] || fact reach "$(reach "${server%:*}" "${server##*:}")"
    [ -e /etc/komainu/image ] && fact image yes
    say "done"
}

# prove has the agent show that it has the key of the device that it is. One that
# does not run, or is too old for this, shows nothing.
prove() {
    say "fact proof $(plain "$(timeout 10 /usr/bin/komainu identity prove "$nonce" 2>/dev/null | head -n 1)" 3000)"
    say "done"
}

# unwritten says why the package is not here.
unwritten() {
    why=$(cat "$work/log" 2>/dev/null)
    # curl says only that it could not write.
    if [ "$(df -Pk "$work" | awk 'NR == 2 { print $4 }')" -lt 1024 ]; then fail disk_full "$why"; fi
    fail transfer_failed "$why"
}

# fetched brings the package into a file: from the control plane, or from
# standard input. The hash is what it is trusted by, not the way it came.
fetched() {
    say "step transfer"
    if [ -n "${url:-}" ]; then
        if has curl; then
            if [ -n "${ca:-}" ]; then set -- "$1" --cacert "$ca"; else set -- "$1" -k; fi
            curl -fsS -m 300 --retry 2 -o "$@" "$url" 2>"$work/log" || unwritten
        elif has wget; then
            if [ -n "${ca:-}" ]; then set -- "$1" --ca-certificate "$ca"; else set -- "$1" --no-check-certificate; fi
            wget -nv -T 60 -O "$@" "$url" 2>"$work/log" || unwritten
        else
            fail transfer_failed "neither curl nor wget is installed"
        fi
    else
        cat >"$1" 2>"$work/log" || unwritten
    fi
    [ "$(wc -c <"$1" | tr -d ' ')" = "$size" ] || fail transfer_failed "$(wc -c <"$1" | tr -d ' ') of $size bytes have come"
    printf '%s  %s\n' "$sha256" "$1" | sha256sum -c --status 2>/dev/null || fail checksum "$(sha256sum "$1" | cut -d' ' -f1)"
}

# unpack has the package manager install the package. What did not come to be
# is taken away again.
unpack() {
    say "step install"
    settled "${patience:-60}"
    reason=install_failed
    case "$format" in
    deb)
        dpkg --force-confold --install "$1" >"$work/log" 2>&1 </dev/null && return
        case "$(cat "$work/log")" in
        *"locked by another process"* | *"unable to access the dpkg"*) fail package_manager_busy "$(tail -n 2 "$work/log")" ;;
        *"No space left"*) reason=disk_full ;;
        esac
        case "$before" in
        "installed "*) ;; # dpkg has put the version from before back
        '')
            dpkg --force-depends --force-remove-reinstreq --purge "$package" >/dev/null 2>&1 </dev/null
            swept
            ;;
        config-files*) dpkg --force-depends --force-remove-reinstreq --remove "$package" >/dev/null 2>&1 </dev/null ;;
        esac
        ;;
    rpm)
        # What is trusted is the hash; a host may want signatures by keys that it
        # does not have.
        rpm -U --oldpackage --replacepkgs --nosignature "$1" >"$work/log" 2>&1 </dev/null && crumbs && return
        case "$(cat "$work/log")" in
        *"can't create transaction lock"*) fail package_manager_busy "$(tail -n 2 "$work/log")" ;;
        *"needs "*" on the "*" filesystem"* | *"No space left"*) reason=disk_full ;;
        esac
        ;;
    tar)
        mkdir "$work/agent" && tar -xzf "$1" -C "$work/agent" >"$work/log" 2>&1 && sh "$work"/agent/*/install.sh install >>"$work/log" 2>&1 </dev/null && return
        case "$(cat "$work/log")" in *"No space left"*) reason=disk_full ;; esac
        ;;
    *) fail no_package "$format" ;;
    esac
    fail "$reason" "$(tail -n 5 "$work/log")"
}

# crumbs takes away what dpkg, rpm and install.sh have written beside our files
# and, because they were ended, never put in their place; and our scripts, which
# rpm runs from files of its own.
crumbs() {
    for file in $files; do
        rm -f "$file".dpkg-new "$file".dpkg-tmp "$file"';'???????? "${file%/*}/.${file##*/}.komainu-new"
    done
    find /var/tmp -maxdepth 1 -name 'rpm-tmp.??????' -type f -user root -exec grep -qF "$ready" {} ';' -exec rm -f {} ';' 2>/dev/null
    return 0
}

# nameless takes away what is left of the agent's second name, be it from its
# package or made by hand. A command of that name that is not ours stays.
nameless() {
    case "$(readlink /usr/bin/mdatp)" in komainu | /usr/bin/komainu) rm -f /usr/bin/mdatp ;; esac
    rm -rf "/usr/share/doc/$second" /usr/bin/mdatp.dpkg-new /usr/bin/mdatp.dpkg-tmp
    rm -f /usr/bin/mdatp';'????????
}

# swept takes away what a package manager does not know of: an installation
# that was ended in its middle leaves files that are in nobody's list. It is
# for hosts that have the package no more.
swept() {
    [ -z "$(installed)" ] || return 0
    systemctl disable --quiet --now komainu-upgrade.path $service >/dev/null 2>&1
    systemctl stop komainu-upgrade.service >/dev/null 2>&1
    crumbs
    # shellcheck disable=SC2086 # a list
    rm -f $files
    rm -rf "/usr/share/doc/$package" /usr/lib/komainu "$state"
    [ -n "$(ours)" ] || nameless
    rm -f "$ready" "$upgrades" /etc/komainu/join-token /etc/komainu/image "/etc/systemd/system/multi-user.target.wants/$service" \
        /etc/systemd/system/multi-user.target.wants/komainu-upgrade.path /usr/libexec/komainu-upgrade /usr/libexec/.komainu-upgrade
    for folder in /var/lib/komainu /etc/komainu /var/log/komainu /usr/share/fish/vendor_completions.d /usr/share/fish /usr/share/zsh/vendor-completions /usr/share/zsh/site-functions /usr/share/zsh; do
        [ ! -d "$folder" ] || rmdir "$folder" 2>/dev/null # those that are empty
    done
    systemctl daemon-reload >/dev/null 2>&1
    systemctl reset-failed $service >/dev/null 2>&1
    return 0
}

# started has the service run, now and after the next boot.
started() {
    systemctl enable --quiet $service >/dev/null 2>&1
    systemctl is-active --quiet $service && return
    case "$(systemctl is-enabled $service 2>/dev/null)" in masked*) fail service_failed "$service is masked: systemctl unmask $service" ;; esac
    systemctl reset-failed $service >/dev/null 2>&1
    systemctl start $service >"$work/log" 2>&1 ||
        fail service_failed "$(journalctl -q --no-pager -o cat -n 5 -u $service 2>/dev/null || cat "$work/log")"
}

# enrolled gives the agent an identity.
enrolled() {
    say "step enrol"
    for try in 1 2 3; do
        case "${enrol:-yes}" in
        cloud) /usr/bin/komainu enrol --cloud "$cloud" --server "https://$server" --pin "$pin" >"$work/log" 2>&1 </dev/null ;;
        cloudforce) /usr/bin/komainu enrol --force --cloud "$cloud" --server "https://$server" --pin "$pin" >"$work/log" 2>&1 </dev/null ;;
        force) printf '%s\n' "$token" | /usr/bin/komainu enrol --force --token-file - >"$work/log" 2>&1 ;;
        *) printf '%s\n' "$token" | /usr/bin/komainu enrol --token-file - >"$work/log" 2>&1 ;;
        esac
        code=$?
        case $code in
        0) return ;;
        6) fail enrol_refused "$(cat "$work/log")" ;;
        4) [ "$try" = 3 ] && fail unreachable_control_plane "$(cat "$work/log")" ;;
        *) fail enrol_failed "$(cat "$work/log")" ;;
        esac
        sleep 1
    done
}

# begin is before everything that changes the host. Two deployments of one host
# must not meet: one whose connection broke may still be at work.
begin() {
    [ "$(id -u)" = 0 ] || fail not_root "user $(id -un)"
    if has flock; then
        exec 9>/run/komainu-deploy.lock
        if ! flock -n 9; then
            say "wait another deployment of Komainu"
            flock -w "${patience:-60}" 9 || fail package_manager_busy "another deployment of Komainu"
        fi
        rm -rf /var/tmp/komainu-deploy.??????
    fi
    work=$(mktemp -d /var/tmp/komainu-deploy.XXXXXX) || fail disk_full "no folder can be made in /var/tmp"
    trap clean EXIT
    trap 'exit 91' HUP INT TERM
}

install() {
    begin
    if [ "${token:-}" = - ]; then
        IFS= read -r token || fail enrol_failed "no join token has come"
    fi
    before=$(installed)
    if [ -n "${format:-}" ]; then
        fetched "$work/agent.$format"
        unpack "$work/agent.$format"
    fi
    case "${enrol:-yes}" in
    boot)
        # A golden image: the agent gets its identity when a copy boots first. The
        # ids tell a copy from the image itself.
        systemctl stop $service >/dev/null 2>&1
        rm -rf "$state"
        mkdir -p /etc/komainu && printf '%s\n' "$token" >/etc/komainu/join-token &&
            printf '%s\n%s\n' "$(cat /etc/machine-id 2>/dev/null)" "$(cat /sys/class/dmi/id/product_uuid 2>/dev/null)" >/etc/komainu/image &&
            chmod 600 /etc/komainu/join-token /etc/komainu/image ||
            fail enrol_failed "the join token cannot be kept in /etc/komainu"
        systemctl enable --quiet $service >/dev/null 2>&1
        ;;
    *)
        started
        [ "${enrol:-yes}" = no ] || enrolled
        ;;
    esac
    say "done $(running) $(device)"
}

remove() {
    begin
    say "step remove"
    settled "${patience:-60}"
    # All in one call: neither goes without the other.
    # shellcheck disable=SC2046 # a list
    set -- $(ours)
    if [ $# -gt 0 ]; then
        case "$(manager)" in
        # dpkg would rather have a package installed again that it has not
        # unpacked to the end.
        deb) dpkg --force-remove-reinstreq --purge "$@" >"$work/log" 2>&1 </dev/null || fail remove_failed "$(tail -n 5 "$work/log")" ;;
        rpm) rpm -e --allmatches "$@" >"$work/log" 2>&1 </dev/null || fail remove_failed "$(tail -n 5 "$work/log")" ;;
        *) sh /usr/lib/komainu/install.sh purge >"$work/log" 2>&1 </dev/null || fail remove_failed "$(tail -n 5 "$work/log")" ;;
        esac
    fi
    swept
    say "done"
}

action=${1:-}
[ $# -eq 0 ] || shift
for argument; do
    case "$argument" in
    server=*) server=${argument#*=} ;;
    format=*) format=${argument#*=} ;;
    sha256=*) sha256=${argument#*=} ;;
    size=*) size=${argument#*=} ;;
    url=*) url=${argument#*=} ;;
    ca=*) ca=${argument#*=} ;;
    token=*) token=${argument#*=} ;;
    enrol=*) enrol=${argument#*=} ;;
    cloud=*) cloud=${argument#*=} ;;
    pin=*) pin=${argument#*=} ;;
    nonce=*) nonce=${argument#*=} ;;
    patience=*) patience=${argument#*=} ;;
    *)
        echo "host.sh: $argument is not known" >&2
        exit 2
        ;;
    esac
done
case "$action" in
facts) facts ;;
prove) prove ;;
install) install ;;
remove) remove ;;
*)
    echo "usage: host.sh facts|prove|install|remove [NAME=VALUE]..." >&2
    exit 2
    ;;
esac
