//! hwloc as a static library for musl, from the source package of the very version that is installed.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::layer::digest;
use crate::install::apt_get;
use crate::shell::{Checkout, read, run};
use crate::upstream::lock;

/// Without libraries that a container has not; PCI and OS devices are read from sysfs, XML by hwloc's own parser.
const CONFIGURE: [&str; 13] = [
    "CC=musl-gcc",
    "--prefix=/usr",
    "--enable-static",
    "--disable-shared",
    "--disable-libudev",
    "--disable-libxml2",
    "--disable-cairo",
    "--disable-opencl",
    "--disable-cuda",
    "--disable-nvml",
    "--disable-rsmi",
    "--disable-levelzero",
    "--disable-gl",
];
/// What the summary of `configure` must say; without it devices or XML would be missing at run time only.
const EXPECTED: [&str; 2] = ["PCI(linux) LinuxIO", "XML input / output:          basic"];
/// Its public keys come with every Debian.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The library, built.
pub(crate) struct Hwloc {
    /// Version of the Debian package.
    pub(crate) version: String,
    /// Folder of `hwloc.pc` and the library.
    pub(crate) pkgconfig: PathBuf,
}

/// Builds it unless this version was built with these flags. Each has a folder of its own: cargo builds anew what linked
/// another.
pub(crate) fn build(checkout: &Checkout) -> Result<Hwloc> {
    let version = read(Command::new("dpkg-query").args(["-W", "-f=${source:Version}", "libhwloc-dev"]))?;
    let recipe = digest(format!("{version}\n{}", CONFIGURE.join("\n")).as_bytes());
    let all = checkout.target.join("hwloc-musl");
    std::fs::create_dir_all(&all).with_context(|| format!("create {}", all.display()))?;
    let _alone = lock(&all.join("lock"))?;
    let folder = all.join(recipe.trim_start_matches("sha256:").get(..12).unwrap_or_default());
    let hwloc = Hwloc { version, pkgconfig: folder };
    if hwloc.pkgconfig.is_dir() {
        return Ok(hwloc);
    }
    let work = all.join("build");
    // What an interrupted build left would be mixed in.
    if work.exists() {
        std::fs::remove_dir_all(&work)?;
    }
    eprintln!("building hwloc {} for musl", hwloc.version);
    let source = fetch(&work, &hwloc.version)?;
    let fresh = compile(&source, &work)?;
    std::fs::rename(&fresh, &hwloc.pkgconfig).with_context(|| format!("rename {}", fresh.display()))?;
    std::fs::remove_dir_all(&work)?;
    Ok(hwloc)
}

/// Downloads and unpacks the source package; apt checks it against the archive's signature. Own lists: the system's
/// know no sources, and are not ours to change.
fn fetch(work: &Path, version: &str) -> Result<PathBuf> {
    for folder in ["lists/partial", "cache/archives/partial"] {
        std::fs::create_dir_all(work.join(folder))?;
    }
    let format = "$(REPO_URI) $(RELEASE) $(COMPONENT)";
    let targets = || {
        let mut command = Command::new("apt-get");
        read(command.args(["indextargets", "--format", format, "Created-By: Packages", "Origin: Debian"]))
    };
    let mut mirrors = targets()?;
    if mirrors.trim().is_empty() {
        // Machines made of an image often come without lists.
        run(&mut apt_get(&["update"]))?;
        mirrors = targets()?;
    }
    let lines: Vec<String> = mirrors.lines().map(|line| format!("deb-src [signed-by={KEYRING}] {line}\n")).collect();
    if lines.is_empty() {
        bail!("apt knows no archive of Debian to take the sources of hwloc {version} from");
    }
    let list = work.join("sources.list");
    std::fs::write(&list, lines.concat())?;
    let apt = |arguments: &[&str]| {
        let mut command = apt_get(arguments);
        for (option, path) in [
            ("Dir::Etc::sourcelist", &list),
            ("Dir::Etc::sourceparts", &work.join("none")),
            ("Dir::State::lists", &work.join("lists")),
            ("Dir::Cache", &work.join("cache")),
        ] {
            command.arg("-o").arg(format!("{option}={}", path.display()));
        }
        // Its own user may not write here.
        command.args(["-o", "APT::Sandbox::User=root"]).current_dir(work);
        command
    };
    run(&mut apt(&["update"]))?;
    run(&mut apt(&["source", &format!("hwloc={version}")]))?;
    let unpacked = std::fs::read_dir(work)?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.join("hwloc.pc.in").is_file());
    unpacked.with_context(|| format!("the source package of hwloc {version} holds no hwloc.pc.in"))
}

/// Gives a folder with the library and the `hwloc.pc` that finds it there.
fn compile(source: &Path, work: &Path) -> Result<PathBuf> {
    let mut configure = Command::new("./configure");
    // Assertions name their file: where it lies must not be seen in the binary.
    let flags = format!("CFLAGS=-O2 -fPIC -fmacro-prefix-map={}=/hwloc", source.display());
    configure.args(CONFIGURE).arg(flags).current_dir(source);
    // Libraries of the host are of another libc.
    configure.env("PKG_CONFIG_LIBDIR", work.join("none"));
    let said = read(&mut configure)?;
    if let Some(missing) = EXPECTED.iter().find(|expected| !said.contains(**expected)) {
        bail!("hwloc would be built without `{missing}`; its configure said:\n{said}");
    }
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let mut make = Command::new("make");
    make.args(["--silent", &format!("--jobs={jobs}"), "--directory=hwloc", "libhwloc.la"]);
    run(make.current_dir(source).stdout(Stdio::null()))?;
    let fresh = work.join("fresh");
    std::fs::create_dir_all(&fresh)?;
    std::fs::copy(source.join("hwloc/.libs/libhwloc.a"), fresh.join("libhwloc.a")).context("libhwloc.a")?;
    let text = std::fs::read_to_string(source.join("hwloc.pc")).context("hwloc.pc")?;
    let libdir = "libdir=${exec_prefix}/lib";
    if !text.contains(libdir) {
        bail!("hwloc.pc has no line `{libdir}`:\n{text}");
    }
    std::fs::write(fresh.join("hwloc.pc"), text.replace(libdir, "libdir=${pcfiledir}"))?;
    Ok(fresh)
}
