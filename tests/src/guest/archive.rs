//! Files of this machine for the file system of a guest: a further archive behind the one that was built (cpio, "newc"), which
//! the kernel unpacks as well.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

const FOLDER: u32 = 0o040_755;
/// Folders of the guest that are links: what an archive says of them would replace them.
const LINKS: [&str; 5] = ["bin", "sbin", "lib", "lib64", "var"];

/// Writes `files` and the folders that lead to them, each at its place on this machine.
///
/// # Errors
/// When a file cannot be read, or the archive not be written.
pub(super) fn write(out: &mut impl Write, files: &[PathBuf]) -> io::Result<()> {
    let mut number = 1_000_000;
    let mut folders = BTreeSet::new();
    for file in files {
        let above = file.ancestors().skip(1).filter_map(name);
        folders.extend(above.filter(|name| !LINKS.contains(&name.as_str())));
    }
    for folder in &folders {
        number += 1;
        entry(out, number, FOLDER, folder, &[])?;
    }
    for file in files {
        number += 1;
        let mode = 0o100_000 | mode(file)?;
        entry(
            out,
            number,
            mode,
            &name(file).unwrap_or_default(),
            &fs::read(file)?,
        )?;
    }
    entry(out, 0, 0, "TRAILER!!!", &[])
}

/// Every file below a folder.
///
/// # Errors
/// When it cannot be read.
pub fn files_below(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(files_below(&path)?);
        } else {
            files.push(path);
        }
    }
    Ok(files)
}

fn mode(file: &Path) -> io::Result<u32> {
    use std::os::unix::fs::PermissionsExt;
    Ok(fs::metadata(file)?.permissions().mode() & 0o777)
}

/// The name in the archive, without the leading slash; nothing for the root.
fn name(path: &Path) -> Option<String> {
    let text = path.to_string_lossy();
    let name = text.strip_prefix('/')?;
    (!name.is_empty()).then(|| name.to_owned())
}

fn entry(out: &mut impl Write, number: u32, mode: u32, name: &str, content: &[u8]) -> io::Result<()> {
    let len = u32::try_from(content.len()).map_err(io::Error::other)?;
    let name_len = u32::try_from(name.len() + 1).map_err(io::Error::other)?;
    // inode, mode, uid, gid, links, mtime, length, device, device of a special file, length of the name, checksum.
    let fields = [number, mode, 0, 0, 1, 0, len, 0, 0, 0, 0, name_len, 0];
    let head: String = fields.iter().map(|field| format!("{field:08x}")).collect();
    let head = format!("070701{head}{name}\0");
    for part in [head.as_bytes(), content] {
        out.write_all(part)?;
        out.write_all(&[0; 3][..part.len().next_multiple_of(4) - part.len()])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    /// As another program reads it.
    #[test]
    fn what_is_archived_is_unpacked() {
        let (from, to) = (
            tempfile::tempdir().expect("a folder"),
            tempfile::tempdir().expect("a folder"),
        );
        let file = from.path().join("below/it");
        fs::create_dir(from.path().join("below")).expect("a folder");
        fs::write(&file, b"five!").expect("a file");
        let mut archive = Vec::new();
        let files = files_below(from.path()).expect("files");
        write(&mut archive, &files).expect("an archive");
        let mut cpio = Command::new("cpio");
        cpio.args(["-i", "-d", "--no-absolute-filenames"])
            .current_dir(to.path());
        let mut child = match cpio.stdin(Stdio::piped()).stderr(Stdio::null()).spawn() {
            Ok(child) => child,
            Err(error) => {
                eprintln!("skipped: cpio: {error}");
                return;
            }
        };
        let mut input = child.stdin.take().expect("a pipe");
        input.write_all(&archive).expect("read");
        drop(input);
        assert!(child.wait().expect("an end").success());
        let unpacked = to.path().join(name(&file).expect("a name"));
        assert_eq!(fs::read(unpacked).expect("the file"), b"five!");
    }
}
