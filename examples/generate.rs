//! Sampling from a model.
//!
//!     cargo run --release --example generate -- MODEL_DIR "Once upon a time"
//!
//! Without arguments it uses the tiny model with random weights that comes with the repository.

use std::path::{Path, PathBuf};

use oaif::Wait;
use oaif::data::StopMatcher;
use oaif::generate::{Request, SamplingParams};
use oaif::gpu::{Gpu, GpuOptions};
use oaif::train::Policy;

fn main() -> oaif::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny");
    let dir = arguments.next().map_or(fixture, PathBuf::from);
    let text = arguments.next().unwrap_or("the fox".into());

    // The default GPU; OAIF_GPU selects another one.
    let gpu = Gpu::open(&GpuOptions::default()).wait()?;

    // A folder in Hugging Face's layout; the weights are frozen.
    let policy = Policy::frozen(&gpu, &dir, None, None).wait()?;

    // A generator records its two plans here, one for prompts and one that decodes a token in every slot, and allocates
    // the memory for both. Running it allocates nothing.
    let sampling = SamplingParams::default().temperature(0.8).top_p(0.95);
    let options =
        policy.generate_options().sampling(sampling).max_new_tokens(40).slots(3).samples_per_prompt(3);
    let generator = policy.generator(options).wait()?;

    // Three responses to one prompt, which is processed once. The seed and the number of a response determine its
    // random numbers: the second response is the same whether or not the others are requested.
    let request = Request { samples: 3, ..policy.request(text.as_str())? };
    let stop = StopMatcher::new(["\n\n".to_owned()]);
    let seed = 1;
    for answer in generator.run(&policy.tokenizer, &[request], &stop, seed).wait()?.remove(0) {
        println!("{text}{}  [{:?}]", answer.text, answer.finish_reason);
    }
    Ok(())
}
