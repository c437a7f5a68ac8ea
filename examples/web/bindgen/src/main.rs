//! bindgen MODULE.wasm FOLDER: what `wasm-bindgen --target web` does, without its client for the web.

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [module, folder] = &arguments[..] else { anyhow::bail!("usage: bindgen MODULE.wasm FOLDER") };
    let mut bindgen = wasm_bindgen_cli_support::Bindgen::new();
    bindgen.input_path(module).web(true)?.typescript(false).omit_default_module_path(false);
    // An eighth of the module: names of functions, for traces that no visitor reads.
    bindgen.remove_name_section(true);
    bindgen.generate(folder)
}
