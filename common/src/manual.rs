//! What a package brings along of a program's command line: manual pages, and completions for shells.

use std::fs;
use std::io;
use std::path::Path;

use clap::Command;
use clap_complete::Shell;
use clap_complete::aot::generate_to;
use clap_mangen::Man;

/// The shells that have completions.
pub const SHELLS: [Shell; 3] = [Shell::Bash, Shell::Zsh, Shell::Fish];

/// Writes a page for `command`, one for each of its visible subcommands, and completions for [`SHELLS`] into a folder, which is
/// made if it is missing: `man/*.SECTION`, and a folder named after each shell. The same command writes the same bytes.
pub fn write(command: Command, section: &str, folder: &Path) -> io::Result<()> {
    let program = command.get_name().to_owned();
    for shell in SHELLS {
        let folder = folder.join(shell.to_string());
        fs::create_dir_all(&folder)?;
        generate_to(shell, &mut command.clone(), &program, &folder)?;
    }
    let pages = folder.join("man");
    fs::create_dir_all(&pages)?;
    // It would have a page for itself and for each subcommand once more.
    let mut command = command.disable_help_subcommand(true);
    command.build();
    write_pages(command, section, &pages)
}

fn write_pages(command: Command, section: &str, folder: &Path) -> io::Result<()> {
    for subcommand in command.get_subcommands().filter(|subcommand| !subcommand.is_hide_set()) {
        write_pages(subcommand.clone(), section, folder)?;
    }
    Man::new(command).section(section).manual("EscrowMQ").generate_to(folder)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Arg;

    use super::*;

    #[test]
    fn visible_commands_have_pages_and_completions() {
        let folder = tempfile::tempdir().unwrap();
        let command = Command::new("tool")
            .about("Does things")
            .arg(Arg::new("loud").long("loud").help("Say more"))
            .subcommand(Command::new("look").about("Look at things"))
            .subcommand(Command::new("secret").hide(true));
        write(command, "1", folder.path()).unwrap();
        let names = |folder: &Path| {
            let mut names: Vec<_> =
                fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        };
        assert_eq!(names(folder.path()), ["bash", "fish", "man", "zsh"]);
        assert_eq!(names(&folder.path().join("man")), ["tool-look.1", "tool.1"]);
        assert_eq!(names(&folder.path().join("zsh")), ["_tool"]);
        let page = fs::read_to_string(folder.path().join("man/tool.1")).unwrap();
        assert!(page.contains("Say more") && page.contains("Look at things") && !page.contains("secret"), "{page}");
        let bash = fs::read_to_string(folder.path().join("bash/tool.bash")).unwrap();
        assert!(bash.contains("--loud") && bash.contains("look"), "{bash}");
    }
}
