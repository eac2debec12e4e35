//! The dashboard: one page and its files, served from this program's own memory. It loads
//! nothing from elsewhere, and has no script or style within its markup, so that it lives
//! under a policy that forbids both.

/// A file of the page.
#[derive(Debug)]
pub(crate) struct Asset {
    /// Where it is asked for.
    pub(crate) path: &'static str,
    /// Its media type.
    pub(crate) content_type: &'static str,
    /// What is in it.
    pub(crate) bytes: &'static [u8],
}

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const IMAGE: &str = "image/svg+xml";
const TEXT: &str = "text/plain; charset=utf-8";

/// A file of the folder `page`, under `/assets/`.
macro_rules! asset {
    ($name:literal, $content_type:expr) => {
        Asset {
            path: concat!("/assets/", $name),
            content_type: $content_type,
            bytes: include_bytes!(concat!("page/", $name)),
        }
    };
}

/// All files of the page.
pub(crate) static ASSETS: &[Asset] = &[
    Asset {
        path: "/",
        content_type: HTML,
        bytes: include_bytes!("page/index.html"),
    },
    asset!("style.css", STYLE),
    asset!("icon.svg", IMAGE),
    asset!("theme.js", SCRIPT),
    asset!("main.js", SCRIPT),
    asset!("dom.js", SCRIPT),
    asset!("format.js", SCRIPT),
    asset!("head.js", SCRIPT),
    asset!("interfaces.js", SCRIPT),
    asset!("keys.js", SCRIPT),
    asset!("log.js", SCRIPT),
    asset!("plot.js", SCRIPT),
    asset!("rates.js", SCRIPT),
    asset!("reasons.js", SCRIPT),
    asset!("rules.js", SCRIPT),
    asset!("scope.js", SCRIPT),
    asset!("stream.js", SCRIPT),
    asset!("top.js", SCRIPT),
    asset!("vendor/uplot/uPlot.iife.min.js", SCRIPT),
    asset!("vendor/uplot/uPlot.min.css", STYLE),
    asset!("vendor/uplot/LICENSE", TEXT),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;
    use std::process::Command;

    use super::*;

    fn text(asset: &Asset) -> &'static str {
        std::str::from_utf8(asset.bytes).expect("UTF-8")
    }

    fn index() -> &'static str {
        let index = ASSETS.iter().find(|asset| asset.path == "/");
        text(index.expect("an index"))
    }

    /// Files that are written here.
    fn own() -> impl Iterator<Item = &'static Asset> {
        ASSETS.iter().filter(|asset| !asset.path.contains("vendor"))
    }

    fn own_scripts() -> impl Iterator<Item = &'static Asset> {
        own().filter(|asset| asset.content_type == SCRIPT)
    }

    /// What stands between `before` and the next `after`, each time.
    fn between<'t>(text: &'t str, before: &str, after: char) -> Vec<&'t str> {
        let parts = text.split(before).skip(1);
        parts.filter_map(|part| part.split(after).next()).collect()
    }

    /// The tags of the markup, without what stands between them.
    fn tags() -> Vec<&'static str> {
        let tags = between(index(), "<", '>');
        assert!(tags.len() > 100);
        tags
    }

    #[test]
    fn each_file_is_there_once_and_is_what_its_name_says() {
        let paths: BTreeSet<&str> = ASSETS.iter().map(|asset| asset.path).collect();
        assert_eq!(paths.len(), ASSETS.len());
        for asset in ASSETS {
            let extension = Path::new(asset.path).extension();
            let expected = match extension.and_then(|extension| extension.to_str()) {
                None if asset.path == "/" => HTML,
                None => TEXT,
                Some("js") => SCRIPT,
                Some("css") => STYLE,
                Some("svg") => IMAGE,
                Some(other) => panic!("{other}"),
            };
            assert_eq!(asset.content_type, expected, "{}", asset.path);
            assert!(!asset.bytes.is_empty() && !text(asset).contains('\r'));
        }
    }

    /// From the page, over its scripts, to each file and to no other.
    #[test]
    fn what_is_referred_to_is_there_and_what_is_there_is_referred_to() {
        let mut found = BTreeSet::from(["/".to_owned()]);
        for attribute in [r#"src=""#, r#"href=""#] {
            for target in between(index(), attribute, '"') {
                match target {
                    // Served by the daemon, and not part of the page.
                    "metrics" | "v1/status" | "v1/stats" | "openapi.json" | "#main" => {}
                    _ => drop(found.insert(format!("/{target}"))),
                }
            }
        }
        assert!(found.contains("/assets/main.js") && found.contains("/assets/style.css"));
        let in_page = found.len();
        for script in own_scripts() {
            for import in between(text(script), "from \"", '"') {
                let name = import.strip_prefix("./").expect("a file beside it");
                found.insert(format!("/assets/{name}"));
            }
            assert!(!text(script).contains("import("), "{}", script.path);
        }
        assert!(found.len() > in_page);
        let there: BTreeSet<String> = ASSETS.iter().map(|asset| asset.path.to_owned()).collect();
        assert_eq!(found, there);
        // What the style sheets could load.
        for style in ASSETS.iter().filter(|asset| asset.content_type == STYLE) {
            for loads in ["url(", "@import", "@font-face"] {
                assert!(!text(style).contains(loads), "{}", style.path);
            }
        }
    }

    #[test]
    fn nothing_is_fetched_from_elsewhere() {
        for asset in own() {
            let text = text(asset).replace(r#"xmlns="http://www.w3.org/2000/svg""#, "");
            for elsewhere in ["http://", "https://", "\"//", "'//", "ws://", "wss://"] {
                assert!(!text.contains(elsewhere), "{}: {elsewhere}", asset.path);
            }
            // Behind a proxy the page may have another root.
            for absolute in ["\"/v1", "\"/assets", "`/v1", "`/assets"] {
                let mut lines = text.lines().map(str::trim_start);
                let comment = |line: &str| line.starts_with('/') || line.starts_with("* ");
                let found = lines.find(|line| line.contains(absolute) && !comment(line));
                let expected = found.filter(|line| !line.contains(".includes(\"/assets/\")"));
                assert_eq!(expected, None, "{}", asset.path);
            }
        }
    }

    #[test]
    fn no_script_and_no_style_stands_in_the_markup() {
        for tag in tags() {
            assert!(!tag.starts_with("style"), "<{tag}>");
            if tag.starts_with("script") {
                assert!(tag.contains(" src=\"assets/"), "<{tag}>");
            }
            for attribute in tag.split_whitespace().skip(1) {
                let name = attribute.split('=').next().unwrap_or_default();
                let handler = name.starts_with("on") && attribute.contains('=');
                assert!(name != "style" && !handler, "<{tag}>");
            }
            assert!(!tag.to_ascii_lowercase().contains("javascript:"), "<{tag}>");
        }
        for script in between(index(), "<script", '/') {
            assert!(script.contains("src="), "{script}");
        }
        let scripts = index().matches("<script").count();
        assert_eq!(index().matches("></script>").count(), scripts);
    }

    /// Names and addresses come from whoever sends packets or writes policies.
    #[test]
    fn what_is_shown_is_text() {
        for script in own_scripts() {
            for markup in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "createContextualFragment",
                "DOMParser",
                "srcdoc",
                "eval(",
                "new Function",
                "setAttribute(\"style\"",
                "setAttribute(\"on",
                "cssText",
            ] {
                assert!(!text(script).contains(markup), "{}: {markup}", script.path);
            }
        }
    }

    #[test]
    fn each_id_is_there_once_and_scripts_ask_for_no_other() {
        let ids = between(index(), " id=\"", '"');
        let known: BTreeSet<&str> = ids.iter().copied().collect();
        assert_eq!(known.len(), ids.len());
        let mut asked = 0;
        for script in own_scripts() {
            for id in between(text(script), "byId(\"", '"') {
                assert!(known.contains(id), "{}: {id}", script.path);
                asked += 1;
            }
        }
        assert!(asked > 30);
        let attributes = ["aria-labelledby=\"", "for=\"", "href=\"#"];
        for id in attributes
            .iter()
            .flat_map(|name| between(index(), name, '"'))
        {
            assert!(known.contains(id), "{id}");
        }
    }

    #[test]
    fn what_others_made_is_unchanged() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/telemetry/page/vendor/uplot");
        let told = include_str!("page/vendor/uplot/README.md");
        let files = ["uPlot.iife.min.js", "uPlot.min.css", "LICENSE"];
        let output = Command::new("sha256sum")
            .args(files)
            .current_dir(folder)
            .output()
            .expect("sha256sum (coreutils)");
        let sums = String::from_utf8(output.stdout).expect("UTF-8");
        assert_eq!(sums.lines().count(), files.len());
        for (line, file) in sums.lines().zip(files) {
            let (sum, _) = line.split_once(' ').expect("a sum");
            let mut rows = told
                .lines()
                .filter(|row| row.contains(&format!("`{file}`")));
            assert!(rows.any(|row| row.contains(sum)), "{file}: {sum}");
        }
    }
}
