//! The files that a bundle carries: kernels and RAM disks, each once however many guests share it, and services.

use crate::{LoadOptions, Resolver};
use std::path::{Path, PathBuf};

/// One file of a bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Its entry in the bundle: `image/web`.
    pub entry: String,
    /// Where it was read from.
    pub path: PathBuf,
    /// Its bytes; empty if the description was loaded without reading images.
    pub bytes: Vec<u8>,
}

/// The files found so far.
#[derive(Debug, Default)]
pub(crate) struct Images {
    pub(crate) list: Vec<Image>,
}

impl Images {
    /// Finds and reads `reference`, and returns its index in the list. The error is a message and a help text.
    pub(crate) fn add(
        &mut self,
        reference: &str,
        prefix: &str,
        base: &Path,
        options: &LoadOptions<'_>,
    ) -> Result<usize, (String, String)> {
        let (path, name) = locate(reference, base, options)?;
        let known = |image: &Image| image.path == path && image.entry.starts_with(prefix);
        if let Some(index) = self.list.iter().position(known) {
            return Ok(index);
        }
        let bytes = if options.read_images { read(&path, reference)? } else { Vec::new() };
        let entry = self.free_entry(prefix, &name);
        self.list.push(Image { entry, path, bytes });
        Ok(self.list.len() - 1)
    }

    /// Finds and reads `reference` for an entry of its own, and returns its index. The error is as above.
    pub(crate) fn add_as(
        &mut self,
        reference: &str,
        entry: String,
        base: &Path,
        options: &LoadOptions<'_>,
    ) -> Result<usize, (String, String)> {
        let (path, _) = locate(reference, base, options)?;
        let bytes = if options.read_images { read(&path, reference)? } else { Vec::new() };
        self.list.push(Image { entry, path, bytes });
        Ok(self.list.len() - 1)
    }

    /// A name in the bundle that no other file has.
    fn free_entry(&self, prefix: &str, name: &str) -> String {
        let allowed = |c: char| {
            if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' }
        };
        let name: String = name.chars().take(40).map(allowed).collect();
        let mut entry = format!("{prefix}{name}");
        let mut number = 2;
        while self.list.iter().any(|image| image.entry == entry) {
            entry = format!("{prefix}{name}.{number}");
            number += 1;
        }
        entry
    }
}

/// Path and name of a file that a description refers to.
fn locate(reference: &str, base: &Path, options: &LoadOptions<'_>) -> Result<(PathBuf, String), (String, String)> {
    if let Some((scheme, name)) = split_scheme(reference) {
        return Ok((resolve(options.resolver, options.read_images, scheme, name)?, name.to_owned()));
    }
    let path = base.join(reference);
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
    Ok((path, name.unwrap_or_default()))
}

/// Splits `example:ping`; a path is not split.
fn split_scheme(reference: &str) -> Option<(&str, &str)> {
    let (scheme, name) = reference.split_once(':')?;
    let word = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
    (word(scheme) && word(name)).then_some((scheme, name))
}

fn resolve(
    resolver: Option<&Resolver>,
    read_images: bool,
    scheme: &str,
    name: &str,
) -> Result<PathBuf, (String, String)> {
    match resolver {
        Some(resolver) => resolver(scheme, name).map_err(|help| (format!("`{scheme}:{name}` is not known"), help)),
        None if !read_images => Ok(PathBuf::from(format!("{scheme}:{name}"))),
        None => Err((
            format!("`{scheme}:{name}` is an image that the project builds, and it is not known where"),
            String::from("give its folder with `--images`, or write a path"),
        )),
    }
}

/// Finds `reference`, which goes into no bundle: its path, and its size in bytes if images are read. The error is as above.
pub(crate) fn find(
    reference: &str,
    base: &Path,
    options: &LoadOptions<'_>,
) -> Result<(PathBuf, Option<u64>), (String, String)> {
    let (path, _) = locate(reference, base, options)?;
    if !options.read_images {
        return Ok((path, None));
    }
    let bytes = std::fs::metadata(&path).map(|metadata| metadata.len());
    let bytes = bytes.map_err(|error| explain(&error, &path, reference))?;
    if path.is_dir() {
        return Err(folder(reference));
    }
    if bytes == 0 {
        return Err((format!("`{reference}` is empty"), String::from("write another path")));
    }
    Ok((path, Some(bytes)))
}

fn read(path: &Path, reference: &str) -> Result<Vec<u8>, (String, String)> {
    if path.is_dir() {
        return Err(folder(reference));
    }
    std::fs::read(path).map_err(|error| explain(&error, path, reference))
}

fn folder(reference: &str) -> (String, String) {
    (format!("`{reference}` is a folder"), String::from("write the path of a file"))
}

/// Why a file cannot be read, and what to write instead.
fn explain(error: &std::io::Error, path: &Path, reference: &str) -> (String, String) {
    match error.kind() {
        std::io::ErrorKind::NotFound => {
            let help = match near_file(path) {
                Some(near) => format!("write `{near}`"),
                None => format!("put it at {} or write another path", path.display()),
            };
            (format!("file `{reference}` does not exist"), help)
        }
        _ => (format!("file `{reference}` cannot be read"), error.to_string()),
    }
}

/// The name of a file in the same folder that `path` may be a misspelling of.
fn near_file(path: &Path) -> Option<String> {
    let wanted = path.file_name()?.to_str()?;
    let entries = std::fs::read_dir(path.parent()?).ok()?;
    let mut names: Vec<String> = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    names.sort();
    crate::diagnostic::closest(wanted, names.iter().map(String::as_str)).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::{Images, split_scheme};

    #[test]
    fn schemes_are_told_from_paths() {
        assert_eq!(split_scheme("example:ping"), Some(("example", "ping")));
        for path in ["kernel", "a/b:c", "./example:ping", "C:/x", ":x", "x:"] {
            assert_eq!(split_scheme(path), None, "{path}");
        }
    }

    #[test]
    fn entries_are_unique_and_tame() {
        let mut images = Images::default();
        for expected in ["image/a_b", "image/a_b.2"] {
            let entry = images.free_entry("image/", "a b");
            assert_eq!(entry, expected);
            images.list.push(super::Image { entry, path: "x".into(), bytes: Vec::new() });
        }
    }
}
