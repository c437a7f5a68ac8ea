//! Sampling from a model.
//!
//!     cargo run --release --example generate -- MODEL_DIR "Once upon a time"
//!
//! Without arguments it takes the tiny model of random weights that comes with the repository.

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

    // The GPU that a program would take by default; OAIF_GPU chooses another one.
    let gpu = Gpu::open(&GpuOptions::default()).wait()?;

    // A folder in Hugging Face's layout, whose weights are only read.
    let policy = Policy::frozen(&gpu, &dir, None, None).wait()?;

    // A generator records its two plans here, one that reads prompts and one that decodes a token for every slot,
    // and takes the memory for both. Nothing is allocated afterwards, however often it runs.
    let sampling = SamplingParams::default().temperature(0.8).top_p(0.95);
    let options =
        policy.generate_options().sampling(sampling).max_new_tokens(40).slots(3).samples_per_prompt(3);
    let generator = policy.generator(options).wait()?;

    // Three answers to one prompt, which is read once. With the seed, the answer's number determines every random
    // draw: the second answer is the same whether or not the others are asked for.
    let request = Request { samples: 3, ..policy.request(text.as_str())? };
    let stop = StopMatcher::new(["\n\n".to_owned()]);
    let seed = 1;
    for answer in generator.run(&policy.tokenizer, &[request], &stop, seed).wait()?.remove(0) {
        println!("{text}{}  [{:?}]", answer.text, answer.finish_reason);
    }
    Ok(())
}
