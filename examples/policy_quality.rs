//! Measures a policy's summaries in the small world with the oracle.
//!
//!     cargo run --release --example policy_quality -- models/policy

use std::path::PathBuf;

use oaif::Wait;
use oaif::unstable::data::tokenizer::{StopMatcher, Tokenizer};
use oaif::unstable::demo::dataset::prompt;
use oaif::unstable::demo::oracle::{Instruction, Quality};
use oaif::unstable::generate::{GenerateOptions, Generator, Request, SamplingParams};
use oaif::unstable::gpu::{Arena, Gpu, GpuOptions};
use oaif::unstable::model::Model;

/// The number of held-out posts, one summary each.
const POSTS: usize = 500;

fn main() -> oaif::Result<()> {
    let dir = PathBuf::from(std::env::args().nth(1).unwrap_or_else(|| "models/policy".into()));
    let gpu = Gpu::open(&GpuOptions::default()).wait()?;
    let (model, tokenizer) = (Model::load(&gpu, &dir, false).wait()?, Tokenizer::load(&dir)?);
    let posts: Vec<_> = (0..POSTS).map(|row| prompt(true, row)).collect();
    let request = |(number, post): (usize, &oaif::unstable::demo::language::Post)| -> oaif::Result<Request> {
        let prompt = tokenizer.encode(&post.to_string())?;
        Ok(Request { prompt, samples: 1, first_sequence: number as _ })
    };
    let requests = posts.iter().enumerate().map(request).collect::<oaif::Result<Vec<_>>>()?;
    let options = GenerateOptions::default()
        .sampling(SamplingParams::default().temperature(0.9))
        .max_new_tokens(40)
        .max_prompt_tokens(requests.iter().map(|request| request.prompt.len()).max().unwrap_or(1))
        .slots(64)
        .samples_per_prompt(1)
        .eos(tokenizer.eos_ids().to_vec());
    let generator = Generator::new(&gpu, &model, options, &Arena::new()).wait()?;
    let answers = generator.run(&tokenizer, &requests, &StopMatcher::default(), 1).wait()?;

    let summaries: Vec<&str> = answers.iter().map(|samples| samples[0].text.trim()).collect();
    let qualities: Vec<Quality> =
        posts.iter().zip(&summaries).map(|(post, summary)| Quality::of(post, summary)).collect();
    let mean = |of: &dyn Fn(&Quality) -> f64| qualities.iter().map(of).sum::<f64>() / POSTS as f64;
    for (post, summary) in posts.iter().zip(&summaries).take(4) {
        println!("{post}\n    {summary}");
    }
    println!("right facts {:.2} of 6", mean(&|q| q.right as f64));
    println!("invented    {:.2}", mean(&|q| q.invented as f64));
    println!("repeated    {:.2}", mean(&|q| q.repeated as f64));
    println!("flaws       {:.2}", mean(&|q| q.flaws as f64));
    println!("tone        {:.2}", mean(&|q| f64::from(q.tone)));
    println!("words       {:.2}", mean(&|q| q.words as f64));
    for instruction in Instruction::ALL {
        println!("utility, {}: {:.2}", instruction.text(), mean(&|q| instruction.utility(q)));
    }
    Ok(())
}
