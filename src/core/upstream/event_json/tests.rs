use std::fmt::Debug;

use serde::Deserialize;

use super::*;
use crate::core::upstream::legacy::{LegacyFrame, deserialize_present};

#[derive(Debug, Default, Deserialize)]
#[serde(default, bound(deserialize = "'de: 'a"))]
struct All<'a> {
    text: LenientText<'a>,
    flag: LenientBool,
    count: LenientCount,
    #[serde(deserialize_with = "deserialize_present")]
    present: Option<LenientCount>,
    raw: Option<&'a RawValue>,
    figures: LenientMap<Box<Figures>>,
    inner: LenientMap<Inner<'a>>,
}

read_fields!(All { text, flag, count, present, raw, figures, inner });

#[derive(Debug, Default, Deserialize)]
#[serde(default, bound(deserialize = "'de: 'a"))]
struct Inner<'a> {
    text: LenientText<'a>,
}

read_fields!(Inner { text });

/// Whether `text` is read without `serde_json`. Fails if that gives it another value than `serde_json` does.
fn is_read<'a, T: ReadFields<'a> + Deserialize<'a> + Debug>(text: &'a str) -> bool {
    let read = read::<T>(text);
    if let Some(value) = &read {
        let expected = serde_json::from_str::<T>(text).map(|value| format!("{value:?}"));
        assert_eq!(expected.ok(), Some(format!("{value:?}")), "{text}");
    }
    read.is_some()
}

/// Values of every form.
const VALUES: [&str; 40] = [
    "null",
    "true",
    "false",
    "0",
    "7",
    "123456",
    "9007199254740993",
    "18446744073709551615",
    "-0",
    "-3",
    "1.5",
    "1e3",
    "1E+2",
    "18446744073709551616",
    "\"\"",
    "\"pve1\"",
    "\"vm0000001\"",
    "\"a \\\"b\\\" \\\\ \\n \\u00e9\"",
    "\"caf\u{e9} \u{1f600}\u{7f}\"",
    "[]",
    "[1, [\"a\"], {\"b\": null}]",
    "{}",
    "{\"text\": \"x\", \"count\": 3}",
    "{\"text\":{\"text\":[]},\"created\":-1,\"failed\":2}",
    "{ \"a\" : { \"b\" : [ { } , [ ] ] } }\t",
    "01",
    "1.",
    "-",
    "+1",
    "1e999",
    "NaN",
    "\"\\ud800\"",
    "\"\\x\"",
    "\"\t\"",
    "\"open",
    "[1,]",
    "{\"a\":1,}",
    "{a:1}",
    "tru",
    "",
];

#[test]
fn every_value_in_every_field_is_that_of_serde_json() {
    let fields = ["text", "flag", "count", "present", "raw", "figures", "inner", "unknown", "te\\u0078t"];
    let mut read = 0;
    for (name, value) in fields.iter().flat_map(|name| VALUES.map(|value| (name, value))) {
        let text = format!("{{\"flag2\":1, \"{name}\": {value}, \"last\": 1}}");
        read += usize::from(is_read::<All<'_>>(&text));
        for again in ["text", "inner"] {
            is_read::<All<'_>>(&format!("{{\"{again}\":{{}},\"{name}\":{value},\"last\":[{value}]}}"));
        }
    }
    assert_eq!(read, 8 * 25 + 2 * 2, "every valid value, and two that are valid where they are not parsed");
}

#[test]
fn what_backends_write_is_read() {
    for text in [
        r#"{"object": "device", "type": "create", "data": {"completed": false, "rowid": "pve1", "vcpus": 4, "x": [-1.5]}}"#,
        r#"{"object":"virtual_machine","end":true,"data":{"error":"It said \"no\".\n"}}"#,
        " { } ",
    ] {
        assert!(is_read::<LegacyFrame<'_>>(text), "{text}");
    }
    let deep = |levels: usize| format!("{{\"data\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
    assert!(is_read::<LegacyFrame<'_>>(&deep(30)));
    for text in ["", "{", "{}}", "[]", "null", "{\"a\"}", "{\"a\":1 \"b\":2}", "{,}", &deep(100_000)] {
        assert!(!is_read::<LegacyFrame<'_>>(text), "{text}");
    }
}

// In a module, so that the layer rules apply only to the core itself.
mod any {
    use proptest::prelude::*;

    use super::*;

    fn value() -> impl Strategy<Value = String> {
        let space = prop::sample::select(vec!["", " ", "\n", "\t\r "]);
        let name = prop_oneof![
            prop::sample::select(vec![
                "text", "flag", "count", "present", "raw", "inner", "object", "end", "data", "rowid", "name",
                "completed", "ip_id", "message", "a\\nb"
            ])
            .prop_map(str::to_owned),
            "[a-z_\u{e9}]{0,20}",
        ];
        let leaf = prop_oneof![
            3 => prop::sample::select(&VALUES[..]).prop_map(str::to_owned),
            1 => "\"[ -~\u{e9}\\\\\"]{0,24}\"",
            1 => "-?[0-9]{1,21}(\\.[0-9]{1,3})?",
        ];
        leaf.prop_recursive(4, 24, 6, move |inner| {
            let item = (space.clone(), inner, space.clone()).prop_map(|(before, value, after)| [before, &value, after].concat());
            let field = (space.clone(), name.clone(), space.clone(), item.clone())
                .prop_map(|(before, name, after, value)| format!("{before}\"{name}\"{after}:{value}"));
            let joined = |items: Vec<String>| items.join(",");
            prop_oneof![
                1 => prop::collection::vec(item, 0..4).prop_map(joined).prop_map(|items| format!("[{items}]")),
                3 => prop::collection::vec(field, 0..6).prop_map(joined).prop_map(|fields| format!("{{{fields}}}")),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_text_has_the_value_that_serde_json_gives_it(
            value in value(),
            at in any::<prop::sample::Index>(),
            (removed, put) in (0..3_usize, prop_oneof![2 => Just(String::new()), 1 => "[ -~\n\u{e9}]{1,2}"]),
        ) {
            let chars: Vec<char> = value.chars().collect();
            let at = at.index(chars.len() + 1);
            let end = chars.len().min(at + removed);
            let changed: String = chars[..at].iter().copied().chain(put.chars()).chain(chars[end..].iter().copied()).collect();
            for text in [&value, &changed] {
                is_read::<All<'_>>(text);
                is_read::<LegacyFrame<'_>>(text);
            }
        }
    }
}
