#!/bin/sh
# Installs what was built, or removes it again: `install.sh install|uninstall`, called by the Makefile and debian/rules.
#
# DESTDIR is where the files are collected, PREFIX where they will be; SYSCONFDIR, DOCDIR, UNITDIR and ZSHDIR for those who have
# other places; BUILT has the programs, DOCS what `make docs` writes.
set -eu
cd "$(dirname "$0")/../.."

: "${DESTDIR=}" "${PREFIX:=/usr/local}" "${SYSCONFDIR:=/etc}" "${BUILT:=target/release}" "${DOCS:=target/docs}"
: "${DOCDIR:=$PREFIX/share/doc/isatapd}" "${UNITDIR:=$PREFIX/lib/systemd/system}" "${ZSHDIR:=$PREFIX/share/zsh/site-functions}"
share=$PREFIX/share
config=$SYSCONFDIR/isatapd.conf

# Mode, source, destination: everything but the configuration and the unit.
files() {
    cat <<END
755 $BUILT/isatapd $PREFIX/sbin/isatapd
755 $BUILT/isatapctl $PREFIX/bin/isatapctl
644 $DOCS/man/isatapd.8 $share/man/man8/isatapd.8
644 $DOCS/man/isatapctl.8 $share/man/man8/isatapctl.8
644 $DOCS/man/isatapd.conf.5 $share/man/man5/isatapd.conf.5
644 $DOCS/completions/isatapd.bash $share/bash-completion/completions/isatapd
644 $DOCS/completions/isatapctl.bash $share/bash-completion/completions/isatapctl
644 $DOCS/completions/_isatapd $ZSHDIR/_isatapd
644 $DOCS/completions/_isatapctl $ZSHDIR/_isatapctl
644 $DOCS/completions/isatapd.fish $share/fish/vendor_completions.d/isatapd.fish
644 $DOCS/completions/isatapctl.fish $share/fish/vendor_completions.d/isatapctl.fish
644 daemon/packaging/isatapd.sysusers $PREFIX/lib/sysusers.d/isatapd.conf
644 daemon/packaging/isatapd.tmpfiles $PREFIX/lib/tmpfiles.d/isatapd.conf
644 daemon/packaging/isatapd.rules $share/polkit-1/rules.d/isatapd.rules
644 daemon/isatapd.conf $DOCDIR/examples/isatapd.conf
644 daemon/packaging/radvd.conf.snippet $DOCDIR/examples/radvd.conf.snippet
644 doc/site.md $DOCDIR/site.md
644 doc/status.schema.json $DOCDIR/status.schema.json
644 doc/anycast/README.md $DOCDIR/anycast/README.md
644 doc/anycast/bird.conf $DOCDIR/anycast/bird.conf
644 doc/anycast/isatap-up.service $DOCDIR/anycast/isatap-up.service
644 README.md $DOCDIR/README.md
644 perf/dashboards/README.md $share/isatapd/dashboards/README.md
644 perf/dashboards/grafana.json $share/isatapd/dashboards/grafana.json
644 perf/dashboards/rules.yml $share/isatapd/dashboards/rules.yml
END
}

# The units name the programs by where they will be.
unit() {
    sed -e "s|@BINDIR@|$PREFIX/bin|" -e "s|@SBINDIR@|$PREFIX/sbin|" daemon/packaging/isatapd.service
}

case "${1-}" in
install)
    files | while read -r mode from to; do
        install -D -m "$mode" "$from" "$DESTDIR$to"
    done
    sed -i "s|^ExecStart=/usr/bin/|ExecStart=$PREFIX/bin/|" "$DESTDIR$DOCDIR/anycast/isatap-up.service"
    install -d "$DESTDIR$UNITDIR"
    unit >"$DESTDIR$UNITDIR/isatapd.service"
    chmod 644 "$DESTDIR$UNITDIR/isatapd.service"
    # The operator's own is never written over.
    [ -e "$DESTDIR$config" ] || install -D -m 644 daemon/isatapd.conf "$DESTDIR$config"
    if [ -z "$DESTDIR" ] && [ -d /run/systemd/system ]; then
        systemd-sysusers isatapd.conf
        systemd-tmpfiles --create isatapd.conf
        systemctl daemon-reload
        echo "installed; after a look at $config: systemctl enable --now isatapd"
    fi
    ;;
uninstall)
    if [ -z "$DESTDIR" ] && [ -d /run/systemd/system ]; then
        systemctl disable --now isatapd.service || true
    fi
    files | while read -r _ _ to; do
        rm -f "$DESTDIR$to"
    done
    rm -f "$DESTDIR$UNITDIR/isatapd.service"
    # Folders of our own; others are everybody's.
    for folder in "$DOCDIR/examples" "$DOCDIR/anycast" "$DOCDIR" "$share/isatapd/dashboards" "$share/isatapd"; do
        [ ! -d "$DESTDIR$folder" ] || rmdir --ignore-fail-on-non-empty "$DESTDIR$folder"
    done
    if [ -z "$DESTDIR" ] && [ -d /run/systemd/system ]; then
        systemctl daemon-reload
    fi
    [ ! -e "$DESTDIR$config" ] || echo "$config stays; remove it by hand"
    ;;
*)
    echo "usage: $0 install|uninstall" >&2
    exit 2
    ;;
esac
