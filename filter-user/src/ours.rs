//! Whose a file or folder is. What is believed is read only where nobody else could have
//! put it there.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;

use nix::unistd::geteuid;

/// Permissions of the group and of others: to write.
pub(crate) const WRITE: u32 = 0o022;
/// All there are.
pub(crate) const ANY: u32 = 0o077;

/// Why something may be somebody else's: its owner is another one, or it gives the group or
/// others one of these permissions. `None` where it is this user's alone.
pub(crate) fn doubt(found: &Metadata, permissions: u32) -> Option<String> {
    let (owner, we) = (found.uid(), geteuid().as_raw());
    if owner != we {
        return Some(format!("it belongs to user {owner}, and this is user {we}"));
    }
    let mode = found.mode() & 0o7777;
    let given = mode & permissions;
    (given != 0).then(|| format!("its mode {mode:04o} lets others in"))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn others_make_doubtful_what_they_may_enter_or_write() {
        let folder = tempfile::tempdir().expect("a folder");
        let doubts = |mode, permissions| {
            fs::set_permissions(folder.path(), Permissions::from_mode(mode)).expect("a mode");
            let found = fs::metadata(folder.path()).expect("it is there");
            doubt(&found, permissions)
        };
        assert_eq!(doubts(0o700, ANY), None);
        assert_eq!(doubts(0o755, WRITE), None);
        for mode in [0o710, 0o704, 0o755] {
            let said = doubts(mode, ANY).expect("a doubt");
            assert!(said.contains(&format!("{mode:04o}")), "{said}");
        }
        for mode in [0o720, 0o702, 0o1777] {
            assert!(doubts(mode, WRITE).is_some(), "{mode:o}");
        }
        let of_somebody = fs::metadata("/proc/1").expect("there is a first process");
        if of_somebody.uid() != geteuid().as_raw() {
            assert!(doubt(&of_somebody, 0).is_some());
        }
    }
}
