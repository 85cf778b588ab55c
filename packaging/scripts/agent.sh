# What a host does around the files of the agent. The maintainer scripts of the
# packages and install.sh of the archive are made of this file and of a few
# lines of their own, so that all ways to install do the same. Each of these
# functions may be ended at any point, and can then be run again.

# ready is there while the agent is set up, and holds the version. It decides
# what is a first installation and what an upgrade: the numbers that package
# managers give to their scripts do not tell whether the one before ran to its
# end.
ready=/var/lib/komainu/agent-is-ready

# upgrades is there when komainu-upgrade.path has been switched on, beside
# ready. An older version has not written it, nor removes it.
upgrades=/var/lib/komainu/agent-upgrades-are-ready

# agent_masked reports whether somebody has masked a unit. Then it stays off,
# and that is no reason to leave a package manager with half an installation.
agent_masked() {
    case "$(systemctl is-enabled "$1" 2>/dev/null)" in
    masked*) return 0 ;;
    esac
    return 1
}

# agent_upgrades has systemd start the upgrades that the agent prepares. It is
# done once: who disables or stops the unit finds it so after an upgrade, too.
# Whatever happens, the agent itself is set up.
agent_upgrades() {
    if [ -e "$upgrades" ] && [ -e "$ready" ]; then
        # systemd gives up a unit that is started too often; nobody wanted that.
        if [ -d /run/systemd/system ] && [ "$(systemctl is-active komainu-upgrade.path)" = failed ]; then
            systemctl reset-failed komainu-upgrade.path || true
            systemctl start komainu-upgrade.path || true
        fi
        return 0
    fi
    if agent_masked komainu-upgrade.path; then
        echo "komainu-upgrade.path is masked: the agent cannot upgrade itself. To change that: systemctl unmask komainu-upgrade.path && systemctl enable --now komainu-upgrade.path" >&2
        return 0
    fi
    systemctl enable --quiet komainu-upgrade.path || return 0 # it says why, and the next version tries again
    if [ -d /run/systemd/system ]; then
        systemctl start komainu-upgrade.path || return 0
    fi
    mkdir -p /var/lib/komainu
    : >"$upgrades"
}

# agent_ready has the service run what is installed.
agent_ready() {
    failed=no
    systemd-sysusers komainu-agent.conf || groupadd --system --force komainu
    if agent_masked komainu-agent.service; then
        failed=masked
    elif [ ! -e "$ready" ]; then
        # Nothing runs where systemd does not, in an image that is being built
        # for example; the unit is enabled all the same.
        systemctl enable --quiet komainu-agent.service
    fi
    if [ -d /run/systemd/system ]; then
        systemctl daemon-reload
    fi
    agent_upgrades
    if [ -d /run/systemd/system ] && [ "$failed" = no ]; then
        # What an administrator has stopped stays stopped. A first installation
        # restarts too: one before it may have been ended after it had started
        # another version.
        state=$(systemctl is-active komainu-agent.service) || true
        case "$state" in
        active | activating | reloading | failed) again=yes ;;
        *) again=no ;;
        esac
        if [ ! -e "$ready" ] || [ "$again" = yes ]; then
            systemctl reset-failed komainu-agent.service 2>/dev/null || true
            systemctl restart komainu-agent.service || failed=yes
        fi
    fi
    # Last, so that whoever is ended before this does all of it again.
    mkdir -p /var/lib/komainu
    { timeout 10 /usr/bin/komainud version 2>/dev/null || true; } >"$ready"
    case "$failed" in
    yes) echo "komainu-agent does not start. journalctl -u komainu-agent says why." >&2 ;;
    masked) echo "komainu-agent.service is masked, so nothing was started. To have it run: systemctl unmask komainu-agent && systemctl enable --now komainu-agent" >&2 ;;
    esac
}

# agent_leave stops the service, before its files go.
agent_leave() {
    rm -f "$ready" "$upgrades" # first, so that an installation after half of this sets all up
    for unit in komainu-agent.service komainu-upgrade.path; do
        systemctl disable --quiet "$unit" || true
        rm -f "/etc/systemd/system/multi-user.target.wants/$unit" # systemctl disables no masked unit
    done
    if [ -d /run/systemd/system ]; then
        # A removal that was ended in its middle has taken units away already,
        # and systemctl fails for those. What counts is that nothing runs.
        units="komainu-upgrade.path komainu-upgrade.service komainu-agent.service"
        # shellcheck disable=SC2086 # a list
        systemctl stop $units || ! systemctl is-active --quiet $units || return 1
    fi
}

# agent_gone tells systemd that the files are gone.
agent_gone() {
    if [ -d /run/systemd/system ]; then
        systemctl daemon-reload || true
    fi
}

# agent_forget removes what the agent has kept: its identity, its queue and
# what is in quarantine.
agent_forget() {
    rm -rf /var/lib/komainu/agent "$ready" "$upgrades"
    rm -f /etc/komainu/join-token /etc/komainu/image /usr/libexec/komainu-upgrade
    for folder in /var/lib/komainu /etc/komainu /var/log/komainu; do
        rmdir --ignore-fail-on-non-empty "$folder" 2>/dev/null || true
    done
}
