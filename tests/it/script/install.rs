//! Images without git.
//!
//! apt-get is the real one, over a local repository. The other package managers are stand-ins that
//! record their calls: no registry that the tests may use offers apk, microdnf or yum.

use super::{
    server::Origin,
    stage::{Outcome, SHELLS, Shell, Stage},
};

/// A root directory with this machine's files, where apt-get knows git but git is not installed.
/// Writes stay in memory.
const DEBIAN: &str = r#"
git=$(command -v git)
store=${root%/root}/tmp
mount -t tmpfs tmpfs $store
mkdir $store/upper $store/scratch
mount -t overlay overlay -o lowerdir=/,upperdir=$store/upper,workdir=$store/scratch $root
mkdir -p $root/opt/real $root/repo
cp $git $root/opt/real/git
rm -f $root/usr/bin/git $root/usr/local/bin/git $root/bin/git
rm -rf $root/etc/apt/sources.list $root/etc/apt/sources.list.d/*
echo 'deb [trusted=yes] file:/repo ./' >$root/etc/apt/sources.list
package() {
    mkdir -p $root/build/$1/DEBIAN $root/build/$1/usr/bin
    printf '%s\n' "Package: $1" "Version: $2" 'Architecture: all' 'Maintainer: Test <test@example.com>' 'Description: stand-in' \
        >$root/build/$1/DEBIAN/control
    [ $1 != git ] || printf '%s\n' '#!/bin/sh' 'exec /opt/real/git "$@"' >$root/build/$1/usr/bin/git
    [ $1 != git ] || chmod 755 $root/build/$1/usr/bin/git
    file=$root/repo/$1.deb
    /usr/bin/dpkg-deb --build $root/build/$1 $file >/dev/null
    { /usr/bin/dpkg-deb --field $file; echo "Filename: ./$1.deb"; echo "Size: $(stat -c %s $file)"
      echo "SHA256: $(sha256sum <$file | cut -d' ' -f1)"; echo; } >>$root/repo/Packages
}
package git 99:1
package ca-certificates 0
mount --rbind /proc $root/proc
mount --rbind /dev $root/dev
"#;

/// A root directory with busybox, the libraries of git and the shells, and `tool` as its only
/// package manager.
fn small(tool: &str, works: bool, origin: &Origin) -> String {
    let origin = origin.path().parent().unwrap().display().to_string();
    format!(
        r#"
git=$(command -v git); core=$($git --exec-path)
mount -t tmpfs tmpfs $root
for path in bin proc dev tmp usr/bin usr/sbin usr/lib lib lib64 opt $core {origin} home; do mkdir -p $root/$path; done
chmod 1777 $root/tmp
cp /usr/bin/busybox $root/bin/busybox
cp $git $root/opt/git
for applet in env id sleep mkdir rm cat cp; do ln -s /bin/busybox $root/bin/$applet; done
: >$root/bin/sh
for path in /usr/lib /lib /lib64 $core {origin} /proc /dev; do mount --rbind $path $root$path; done
if [ -n "{tool}" ]; then
    printf '%s\n' '#!/bin/busybox sh' 'echo "${{0##*/}} $* (token ${{MYCLI_GIT_TOKEN-gone}})" >>/called; echo installing' \
        '{works} || exit 3' 'cp /opt/git /usr/bin/git' >$root/usr/sbin/{tool}
    chmod 755 $root/usr/sbin/{tool}
fi
"#
    )
}

fn play(shell: Shell, tool: &str, works: bool, user: Option<u32>) -> Outcome {
    let origin = Origin::new();
    let stage = Stage::new(shell, "cat /called f")
        .repo(origin.path(), "")
        .env("MYCLI_WORKDIR", "/tmp")
        .env("MYCLI_GIT_TOKEN", "hush");
    let stage = stage
        .env("HOME", "/home")
        .in_root(&small(tool, works, &origin));
    user.into_iter().fold(stage, Stage::with_user).play()
}

#[test]
fn apt_get_installs_it_from_a_repository() {
    let origin = Origin::new();
    let stage = Stage::new(
        Shell::Dash,
        "git --version; cat f; dpkg-query -W -f '${Version}' git",
    )
    .repo(origin.path(), "");
    let stage = stage.env("MYCLI_WORKDIR", "/tmp").in_root(DEBIAN).env(
        "PATH",
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    );
    let outcome = stage.play();
    assert!(
        outcome
            .err()
            .starts_with("mycli: installing git with apt-get;"),
        "{}",
        outcome.err()
    );
    assert!(
        outcome.out().starts_with("git version ") && outcome.out().ends_with("main\n99:1"),
        "{} {}",
        outcome.out(),
        outcome.err()
    );
}

#[test]
fn each_package_manager_is_called_in_its_own_way() {
    let calls = [
        ("apk", "apk add --no-cache --quiet git ca-certificates"),
        ("dnf", "dnf install -y git ca-certificates"),
        ("microdnf", "microdnf install -y git ca-certificates"),
        ("yum", "yum install -y git ca-certificates"),
    ];
    for shell in SHELLS {
        for (tool, call) in calls {
            let outcome = play(shell, tool, true, None);
            assert_eq!(
                outcome.out(),
                format!("{call} (token gone)\nmain\n"),
                "{shell:?}: {}",
                outcome.err()
            );
            let said = format!(
                "mycli: installing git with {tool}; an image that has it starts sooner\ninstalling\n"
            );
            assert_eq!(outcome.err(), said, "{shell:?}");
        }
    }
}

#[test]
fn a_package_manager_that_fails_is_named() {
    let outcome = play(Shell::Busybox, "apk", false, None);
    let expected = "apk could not install git (its messages are in the log): use an image that has git, or --no-repo";
    assert_eq!(outcome.failure(), expected);
}

#[test]
fn without_a_package_manager_it_says_what_to_do() {
    for shell in SHELLS {
        let outcome = play(shell, "", true, None);
        assert!(
            outcome
                .failure()
                .starts_with("git is not in this image, nor is a package manager that we know"),
            "{shell:?}"
        );
        assert!(
            outcome
                .failure()
                .ends_with("use an image that has git, or --no-repo"),
            "{shell:?}"
        );
    }
}

#[test]
fn without_root_it_says_what_to_do() {
    for shell in SHELLS {
        let outcome = play(shell, "apk", true, Some(4343));
        let expected = "git is not in this image and cannot be installed without root: use an image that has git, or --no-repo";
        assert_eq!(outcome.failure(), expected, "{shell:?}");
    }
}
