//! The tools of those who build a project: too old, or left by an installation that was cut short; then moved with the project,
//! and without the Python that they were installed for.

use std::{
    fs, io,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
};

/// What the compilers of earlier years say. They build nothing.
const OLD: [(&str, &str); 2] = [("go", "go version go1.24.9 linux/amd64"), ("zig", "0.16.0")];

/// What is left of an installation that was cut short: some of it runs.
const CUT_SHORT: [(&str, &str); 3] =
    [("python", "0.17.1"), ("go", "go version go1.27.3 linux/amd64"), ("python-zig", "0.17.1")];

/// Puts old compilers into a directory, to be found before all others.
pub fn old(dir: &Path) -> io::Result<()> {
    programs(dir, &OLD)
}

/// Leaves in a project what an installation does that its author did not wait for.
pub fn cut_short(project: &Path) -> io::Result<()> {
    programs(&project.join(".venv/bin"), &CUT_SHORT)
}

fn programs(dir: &Path, programs: &[(&str, &str)]) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    for (name, says) in programs {
        let file = dir.join(name);
        fs::write(&file, format!("#!/bin/sh\necho '{says}'\n"))?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

/// Takes away the Python that a project's packages were installed for, as its upgrade does.
pub fn upgrade_python(project: &Path) -> io::Result<()> {
    let python = project.join(".venv/bin/python");
    fs::remove_file(&python)?;
    symlink("/usr/bin/python3.0", python)
}
