# What a host does around the files of the agent. The maintainer scripts of the
# packages and install.sh of the archive are made of this file and of a few
# lines of their own, so that all ways to install do the same. Each of these
# functions may be ended at any point, and can then be run again.

# ready is there while the agent is set up, and holds the version. It decides
# what is a first installation and what an upgrade: the numbers that package
# managers give to their scripts do not tell whether the one before ran to its
# end.
ready=/var/lib/komainu/agent-is-ready

# agent_ready has the service run what is installed.
agent_ready() {
    failed=no
    systemd-sysusers komainu-agent.conf || groupadd --system --force komainu
    if [ ! -e "$ready" ]; then
        # Nothing runs where systemd does not, in an image that is being built
        # for example; the unit is enabled all the same.
        systemctl enable --quiet komainu-agent.service
    fi
    # With every version, since an older one did not have it.
    systemctl enable --quiet komainu-upgrade.path
    if [ -d /run/systemd/system ]; then
        systemctl daemon-reload
        systemctl start komainu-upgrade.path || true
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
    if [ "$failed" = yes ]; then
        echo "komainu-agent does not start. journalctl -u komainu-agent says why." >&2
    fi
}

# agent_leave stops the service, before its files go.
agent_leave() {
    rm -f "$ready" # first, so that an installation after half of this sets all up
    systemctl disable --quiet komainu-agent.service komainu-upgrade.path || true
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
    rm -rf /var/lib/komainu/agent "$ready"
    rm -f /etc/komainu/join-token /etc/komainu/image /usr/libexec/komainu-upgrade
    for folder in /var/lib/komainu /etc/komainu /var/log/komainu; do
        rmdir --ignore-fail-on-non-empty "$folder" 2>/dev/null || true
    done
}
