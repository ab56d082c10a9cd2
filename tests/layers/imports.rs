//! Which file of the crate imports which: the paths in its `use` declarations and in its code, resolved to files.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use syn::visit::{self, Visit};
use syn::{Attribute, Item, ItemMod, ItemUse, Meta, UseTree, Visibility};

/// The path of a module, without `crate`.
pub(crate) type Module = Vec<String>;

/// The files that each file imports, by their modules. A parent and a child are one subject, and left out.
pub(crate) fn imports(root: &Path) -> BTreeMap<Module, BTreeSet<Module>> {
    let mut files = BTreeMap::new();
    read(root, &[], &mut files);
    let mut exports = BTreeMap::new();
    for (module, file) in &files {
        for (path, name) in &file.exports {
            if let Some(target) = absolute(path, module, &files) {
                exports.insert([module.as_slice(), std::slice::from_ref(name)].concat(), target);
            }
        }
    }
    let target = |path: &Module, module: &Module| -> Option<Module> {
        let mut path = absolute(path, module, &files)?;
        for _ in 0..files.len() {
            let Some((name, target)) = exports.iter().find(|(name, _)| path.starts_with(name)) else { break };
            path = [target.as_slice(), &path[name.len()..]].concat();
        }
        (1..=path.len()).rev().map(|length| path[..length].to_vec()).find(|path| files.contains_key(path))
    };
    let related = |one: &Module, other: &Module| one.starts_with(other) || other.starts_with(one);
    let of = |(module, file): (&Module, &File)| {
        let targets = file.paths.iter().filter_map(|path| target(path, module));
        (module.clone(), targets.filter(|target| !related(target, module)).collect())
    };
    files.iter().map(of).collect()
}

/// Files of which each imports the next, and the last one the first, if there are such files.
pub(crate) fn circle(mut imports: BTreeMap<Module, BTreeSet<Module>>) -> Option<Vec<Module>> {
    // Without the files that import nothing, over and over, every file that is left leads to a circle.
    loop {
        let left: BTreeSet<Module> = imports.keys().cloned().collect();
        imports.values_mut().for_each(|targets| targets.retain(|target| left.contains(target)));
        imports.retain(|_, targets| !targets.is_empty());
        if imports.len() == left.len() {
            break;
        }
    }
    let mut walked = vec![imports.keys().next()?.clone()];
    loop {
        let next = imports[walked.last()?].first()?;
        if let Some(start) = walked.iter().position(|module| module == next) {
            return Some(walked.split_off(start));
        }
        walked.push(next.clone());
    }
}

#[derive(Default)]
struct File {
    /// Every path that it names, as it is written.
    paths: Vec<Module>,
    /// The paths that it exports again, and under which name.
    exports: Vec<(Module, String)>,
}

fn read(folder: &Path, module: &[String], files: &mut BTreeMap<Module, File>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let module = [module, &[name]].concat();
        if path.is_dir() {
            read(&path, &module, files);
        } else if path.extension().is_some_and(|end| end == "rs") {
            let mut file = File::default();
            file.visit_file(&syn::parse_file(&fs::read_to_string(&path).unwrap()).unwrap());
            files.insert(module, file);
        }
    }
}

/// `path` as it is named in `module`, from the root of the crate; `None` if it leads out of it.
fn absolute(path: &Module, module: &Module, files: &BTreeMap<Module, File>) -> Option<Module> {
    let child = |name: &String| files.contains_key(&[module.as_slice(), std::slice::from_ref(name)].concat());
    let (first, rest) = path.split_first()?;
    let mut base = match first.as_str() {
        "crate" => Vec::new(),
        "self" => module.clone(),
        "super" => module[..module.len() - 1].to_vec(),
        _ if child(first) => [module.as_slice(), std::slice::from_ref(first)].concat(),
        _ => return None,
    };
    for name in rest {
        if name == "super" {
            base.pop();
        } else {
            base.push(name.clone());
        }
    }
    Some(base)
}

fn is_test(attributes: &[Attribute]) -> bool {
    let is_test = |attribute: &Attribute| matches!(&attribute.meta, Meta::List(list) if list.path.is_ident("cfg") && list.tokens.to_string() == "test");
    attributes.iter().any(is_test)
}

fn leaves(tree: &UseTree, mut path: Module, found: &mut Vec<(Module, String)>) {
    match tree {
        UseTree::Path(part) => {
            path.push(part.ident.to_string());
            leaves(&part.tree, path, found);
        }
        UseTree::Group(group) => group.items.iter().for_each(|tree| leaves(tree, path.clone(), found)),
        UseTree::Glob(_) => found.push((path, "*".to_owned())),
        UseTree::Name(name) if name.ident == "self" => found.push((path, "self".to_owned())),
        UseTree::Name(name) => {
            path.push(name.ident.to_string());
            found.push((path, name.ident.to_string()));
        }
        UseTree::Rename(renamed) => {
            path.push(renamed.ident.to_string());
            found.push((path, renamed.rename.to_string()));
        }
    }
}

impl<'ast> Visit<'ast> for File {
    fn visit_item(&mut self, item: &'ast Item) {
        let attributes = match item {
            Item::Mod(module) => &module.attrs,
            Item::Use(used) => &used.attrs,
            Item::Fn(function) => &function.attrs,
            Item::Impl(implementation) => &implementation.attrs,
            _ => return visit::visit_item(self, item),
        };
        if !is_test(attributes) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, module: &'ast ItemMod) {
        let mut inner = Self::default();
        visit::visit_item_mod(&mut inner, module);
        // Its parent is this file.
        self.paths.extend(inner.paths.into_iter().map(|mut path| {
            if path.first().is_some_and(|first| first == "super") {
                path[0] = "self".to_owned();
            }
            path
        }));
    }

    fn visit_item_use(&mut self, used: &'ast ItemUse) {
        let mut found = Vec::new();
        leaves(&used.tree, Module::new(), &mut found);
        self.paths.extend(found.iter().map(|(path, _)| path.clone()));
        if !matches!(used.vis, Visibility::Inherited) {
            self.exports.extend(found);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.segments.len() > 1 {
            self.paths.push(path.segments.iter().map(|part| part.ident.to_string()).collect());
        }
        visit::visit_path(self, path);
    }
}
