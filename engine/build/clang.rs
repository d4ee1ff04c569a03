//! Which clang compiles the programs of the `ebpf` lane, and what is said where none does. Pure: the build script tries them.

/// The oldest that has the instructions of `-mcpu=v3`, and the newest whose name is tried.
const VERSIONS: std::ops::RangeInclusive<u32> = 11..=24;

/// What becomes of a program that is asked to compile nothing for the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It does.
    Compiles,
    /// It says that it cannot.
    Refuses,
    /// There is no such program.
    Absent,
}

/// The one that compiles them; or why there is none, as what has been true when this was built, and what to do about it.
pub fn choose(named: Option<String>, attempt: impl Fn(&str) -> Outcome) -> Result<String, String> {
    let is_named = named.is_some();
    let numbered = VERSIONS.rev().map(|version| format!("clang-{version}"));
    let usual = || ["clang".to_owned()].into_iter().chain(numbered);
    let candidates: Vec<_> = named.map_or_else(|| usual().collect(), |named| vec![named]);
    let mut refusing = Vec::new();
    let mut absent = Vec::new();
    for clang in candidates {
        match attempt(&clang) {
            Outcome::Compiles => return Ok(clang),
            Outcome::Refuses => refusing.push(clang),
            Outcome::Absent => absent.push(clang),
        }
    }
    let oldest = VERSIONS.start();
    Err(match refusing.as_slice() {
        [] if is_named => format!(
            "CLANG named {}, which could not be run; build again with a clang from {oldest} on",
            absent.join(", ")
        ),
        [] => format!("there was no clang; install it (from {oldest} on: package clang) and build again"),
        _ => format!(
            "{} did not compile for the target bpf; install a clang from {oldest} on that does (package clang), or name it with CLANG, and build again",
            refusing.join(", ")
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is chosen where there are these, and those of them that know the target.
    fn chosen(named: Option<&str>, there: &[&str], able: &[&str]) -> Result<String, String> {
        choose(named.map(str::to_owned), |clang| {
            if able.contains(&clang) {
                Outcome::Compiles
            } else if there.contains(&clang) {
                Outcome::Refuses
            } else {
                Outcome::Absent
            }
        })
    }

    #[test]
    fn the_usual_one_then_the_newest() {
        assert_eq!(chosen(None, &[], &["clang", "clang-19"]), Ok("clang".to_owned()));
        assert_eq!(
            chosen(None, &["clang"], &["clang-14", "clang-19"]),
            Ok("clang-19".to_owned())
        );
        assert_eq!(
            chosen(Some("/opt/clang"), &[], &["clang", "/opt/clang"]),
            Ok("/opt/clang".to_owned())
        );
    }

    /// Who names one means that one.
    #[test]
    fn what_is_missing_is_said_and_what_to_install() {
        let refusal = |named, there: &[&str]| chosen(named, there, &["clang-19"]).unwrap_err();
        assert_eq!(
            refusal(Some("/opt/clang"), &[]),
            "CLANG named /opt/clang, which could not be run; build again with a clang from 11 on"
        );
        assert!(
            refusal(Some("/opt/clang"), &["/opt/clang"])
                .starts_with("/opt/clang did not compile for the target bpf;")
        );
        let nothing = chosen(None, &[], &[]).unwrap_err();
        assert_eq!(
            nothing,
            "there was no clang; install it (from 11 on: package clang) and build again"
        );
        let unable = chosen(None, &["clang", "clang-14"], &[]).unwrap_err();
        assert_eq!(
            unable,
            "clang, clang-14 did not compile for the target bpf; install a clang from 11 on that does (package clang), \
             or name it with CLANG, and build again"
        );
    }
}
