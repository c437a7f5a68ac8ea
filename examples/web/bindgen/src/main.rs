//! bindgen MODULE.wasm FOLDER: the same as `wasm-bindgen --target web`, without the dependencies of its command line.

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [module, folder] = &arguments[..] else { anyhow::bail!("usage: bindgen MODULE.wasm FOLDER") };
    let mut bindgen = wasm_bindgen_cli_support::Bindgen::new();
    bindgen.input_path(module).web(true)?.typescript(false).omit_default_module_path(false);
    // Removes the names of functions, an eighth of the module; they are only needed for stack traces.
    bindgen.remove_name_section(true);
    bindgen.generate(folder)
}
