//! The overlay of the root filesystem as the initramfs composes it: the order of the layers, and what no longer fits
//! into the option string of the mount. docs/plan.md lists the rules.

use serde::Serialize;
use std::collections::BTreeMap;

/// The kernel gets one page of options.
const OPTION: &str = "lowerdir=";
/// The links to the layers. The initramfs puts up to ten random digits there.
const LINKS: &str = "/tmp/mobynit-lowerNNNNNNNNNN/";

/// An extension that the initramfs has selected.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OverlayMember<'a> {
    /// The container's name.
    pub(crate) name: &'a str,
    /// The label with the priority above the OS.
    pub(crate) priority: Option<&'a str>,
    /// The names of its layers, its own first.
    pub(crate) layers: &'a [String],
}

/// The place of an extension in the overlay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum OverlayPlace {
    /// Its files replace those of the OS.
    AboveOs,
    /// It only adds files.
    BelowOs,
    /// The option string has no room for it.
    Pruned,
}

impl OverlayPlace {
    pub(crate) fn in_words(self) -> &'static str {
        match self {
            Self::AboveOs => "above OS",
            Self::BelowOs => "below OS",
            Self::Pruned => "-",
        }
    }
}

/// A layer of the overlay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OverlayLayer {
    /// The link in the option string.
    pub(crate) link: String,
    /// The member, by its number in the list; `None` for a layer of the OS.
    pub(crate) member: Option<usize>,
    /// The name of the layer; for one of the OS, its number.
    pub(crate) name: String,
}

/// The composed overlay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BootOverlay {
    /// The members by their number in the list, and their places, in the order of the overlay: the first wins. The
    /// pruned ones come last.
    pub(crate) order: Vec<(usize, OverlayPlace)>,
    /// The layers from the top, each once.
    pub(crate) layers: Vec<OverlayLayer>,
    /// The option string; each layer is named once.
    pub(crate) option: String,
    /// The length that is compared with the page: layers that are named twice count twice.
    pub(crate) measured: usize,
}

/// Composes the overlay from `members`, which are in the order of their ids. The OS has `os_layers` layers.
pub(crate) fn compose<'a>(
    os_layers: usize,
    members: &'a [OverlayMember<'a>],
    page: usize,
) -> BootOverlay {
    let mut above: Vec<usize> =
        numbers(members).filter(|(_, it)| it.priority.is_some()).map(|(at, _)| at).collect();
    above.sort_by_key(|&at| members.get(at).map(|it| (rank(it.priority), it.name)));
    let below: Vec<usize> =
        numbers(members).filter(|(_, it)| it.priority.is_none()).map(|(at, _)| at).collect();
    let layers = |at: &usize| -> &'a [String] { members.get(*at).map_or(&[], |it| it.layers) };
    let links = Links::of_all(os_layers, members);
    // The OS is there in any case.
    let mut length = OPTION.len() + (0..os_layers).map(|at| cost(&link(at))).sum::<usize>();
    let mut fitting = |all: &[usize]| {
        let mut count = 0;
        for at in all {
            let more: usize = layers(at).iter().map(|layer| cost(&links.of(layer))).sum();
            // The separators are one fewer than the layers.
            if length + more > page.saturating_sub(1) {
                break;
            }
            length += more;
            count += 1;
        }
        count
    };
    let (fit_above, fit_below) = (fitting(&above), fitting(&below));
    let (above, pruned_above) = above.split_at(fit_above);
    let (below, pruned_below) = below.split_at(fit_below);
    let named = |all: &[usize]| -> Vec<OverlayLayer> {
        let all = all.iter().flat_map(|at| layers(at).iter().map(|layer| (*at, layer)));
        all.map(|(at, layer)| OverlayLayer {
            link: links.of(layer),
            member: Some(at),
            name: layer.clone(),
        })
        .collect()
    };
    let of_os = |at: usize| OverlayLayer { link: link(at), member: None, name: at.to_string() };
    let mut all = named(above);
    all.extend((0..os_layers).map(of_os));
    all.extend(named(below));
    let all = each_once(all);
    let paths: Vec<&str> = all.iter().map(|layer| layer.link.as_str()).collect();
    let option = format!("{OPTION}{}", paths.join(":"));
    let place = |all: &[usize], place| all.iter().map(|&at| (at, place)).collect::<Vec<_>>();
    let order = [
        place(above, OverlayPlace::AboveOs),
        place(below, OverlayPlace::BelowOs),
        place(pruned_above, OverlayPlace::Pruned),
        place(pruned_below, OverlayPlace::Pruned),
    ];
    BootOverlay { order: order.concat(), option, layers: all, measured: length.saturating_sub(1) }
}

fn numbers<'a>(
    members: &'a [OverlayMember<'a>],
) -> impl Iterator<Item = (usize, &'a OverlayMember<'a>)> {
    members.iter().enumerate()
}

/// A lower one wins; what is not a number is as good as the highest. The initramfs reads it as Go's `int`, which is as
/// wide as a pointer.
fn rank(priority: Option<&str>) -> isize {
    priority.and_then(|text| text.parse().ok()).unwrap_or(isize::MAX)
}

/// The numbers of the links: after those of the OS, they are made for each selected extension in the order of the ids,
/// before any is put into its place or left out.
struct Links<'a> {
    os_layers: usize,
    numbers: BTreeMap<&'a str, usize>,
}

impl<'a> Links<'a> {
    fn of_all(os_layers: usize, members: &'a [OverlayMember<'a>]) -> Self {
        let mut numbers = BTreeMap::new();
        for layer in members.iter().flat_map(|member| member.layers) {
            let next = os_layers + numbers.len();
            numbers.entry(layer.as_str()).or_insert(next);
        }
        Self { os_layers, numbers }
    }

    fn of(&self, layer: &str) -> String {
        // Every layer of a member has a number.
        link(self.numbers.get(layer).copied().unwrap_or(self.os_layers))
    }
}

fn link(number: usize) -> String {
    format!("{LINKS}{number}")
}

/// With its separator.
fn cost(link: &str) -> usize {
    link.len() + 1
}

/// Keeps the last of equal layers.
fn each_once(layers: Vec<OverlayLayer>) -> Vec<OverlayLayer> {
    let last: BTreeMap<String, usize> =
        (0..).zip(&layers).map(|(at, layer)| (layer.link.clone(), at)).collect();
    let numbered = (0..).zip(layers);
    numbered.filter(|(at, layer)| last.get(&layer.link) == Some(at)).map(|(_, it)| it).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: usize = 4096;

    fn layers(names: &str) -> Vec<String> {
        names.split_whitespace().map(str::to_owned).collect()
    }

    struct Member {
        name: String,
        priority: Option<String>,
        layers: Vec<String>,
    }

    fn member(name: &str, priority: Option<&str>, names: &str) -> Member {
        let priority = priority.map(str::to_owned);
        Member { name: name.to_owned(), priority, layers: layers(names) }
    }

    fn composed(os_layers: usize, members: &[Member], page: usize) -> BootOverlay {
        let views: Vec<_> = members
            .iter()
            .map(|Member { name, priority, layers }| OverlayMember {
                name,
                priority: priority.as_deref(),
                layers,
            })
            .collect();
        compose(os_layers, &views, page)
    }

    /// The numbers of the links in the option string.
    fn links(overlay: &BootOverlay) -> Vec<usize> {
        let paths = overlay.option.strip_prefix(OPTION).unwrap().split(':');
        paths.map(|path| path.strip_prefix(LINKS).unwrap().parse().unwrap()).collect()
    }

    #[test]
    fn overrides_stand_above_the_os_by_priority_and_name_and_the_rest_below() {
        let members = [
            member("z", None, "z"),
            member("late", Some("10"), "l1 l2"),
            member("b", Some("-3"), "b"),
            member("a", Some("-3"), "a"),
            member("wrong", Some("high"), "w"),
            member("huge", Some("99999999999999999999"), "h"),
            member("y", None, "y"),
        ];
        let overlay = composed(2, &members, PAGE);
        let names: Vec<_> =
            overlay.order.iter().map(|(at, _)| members[*at].name.as_str()).collect();
        assert_eq!(names, ["a", "b", "late", "huge", "wrong", "z", "y"]);
        let above = overlay.order.iter().filter(|(_, place)| *place == OverlayPlace::AboveOs);
        assert_eq!(above.count(), 5);
        // The links of the OS are made first, and the others in the order of the list.
        assert_eq!(links(&overlay), [6, 5, 3, 4, 8, 7, 0, 1, 2, 9]);
        assert_eq!(overlay.measured, overlay.option.len());
    }

    #[test]
    fn a_layer_that_is_named_twice_stands_at_its_last_place_and_counts_twice() {
        let members = [
            member("a", Some("1"), "a shared"),
            member("b", Some("2"), "b shared"),
            member("c", None, "c shared"),
        ];
        let overlay = composed(1, &members, PAGE);
        assert_eq!(links(&overlay), [1, 3, 0, 4, 2]);
        let one = format!("{LINKS}0:").len();
        assert_eq!(overlay.measured, OPTION.len() + 7 * one - 1);
        assert_eq!(overlay.option.len(), OPTION.len() + 5 * one - 1);
    }

    #[test]
    fn what_reaches_the_end_of_the_page_is_left_out_with_all_that_follow() {
        let members = [
            member("big", Some("2"), "1 2 3 4"),
            member("first", Some("1"), "5"),
            member("small", Some("3"), "6"),
            member("x", None, "7"),
            member("y", None, "8 9"),
            member("z", None, "1"),
        ];
        let one = format!("{LINKS}0:").len();
        // The OS, "first" and "x": three links. One byte less leaves out "x" as well.
        let exact = OPTION.len() + 3 * one - 1;
        let names = |page: usize| -> Vec<(&str, OverlayPlace)> {
            let overlay = composed(1, &members, page);
            assert!(overlay.measured < page - 1, "{page}");
            let order = overlay.order.iter();
            order.map(|(at, place)| (members[*at].name.as_str(), *place)).collect()
        };
        use OverlayPlace::{AboveOs, BelowOs, Pruned};
        let all = [
            ("first", AboveOs),
            ("x", BelowOs),
            ("big", Pruned),
            ("small", Pruned),
            ("y", Pruned),
            ("z", Pruned),
        ];
        assert_eq!(names(exact + 2), all);
        let [first, x, big, small, y, z] = all.map(|(name, _)| (name, Pruned));
        assert_eq!(names(exact + 1), [("first", AboveOs), big, small, x, y, z]);
        let _ = first;
    }

    #[test]
    fn the_os_is_there_even_if_it_alone_exceeds_the_page() {
        let overlay = composed(300, &[member("a", None, "a")], PAGE);
        assert_eq!(overlay.order, [(0, OverlayPlace::Pruned)]);
        assert_eq!(links(&overlay).len(), 300);
        assert!(overlay.measured > PAGE);
    }

    #[test]
    fn a_number_is_what_go_takes_for_one() {
        let first = |a: &str, b: &str| {
            let members = [member("a", Some(a), "a"), member("b", Some(b), "b")];
            composed(1, &members, PAGE).order[0].0
        };
        for (number, other) in [("+1", "2"), ("-1", "0"), ("007", "8"), ("9", "x")] {
            assert_eq!(first(number, other), 0, "{number} {other}");
        }
        // Not a number each, so the names decide.
        for text in ["", " 1", "1 ", "0x1", "1_0", "1.0", "٣"] {
            assert_eq!(first("5", text), 0, "{text:?}");
            assert_eq!(first(text, "5"), 1, "{text:?}");
            assert_eq!(first(text, "none"), 0, "{text:?}");
        }
    }
}
