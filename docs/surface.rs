// The surface of the crate, 97 items, as tests/surface.rs lists it: UPDATE_SURFACE=1 cargo test --test surface.
// Bodies, private fields and what is of oaif::unstable are left out; options have a setter for each field.

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    Io { action: &'static str, path: PathBuf, source: std::io::Error },
    File { path: PathBuf, why: String },
    Row { path: PathBuf, line: usize, why: String },
    TensorShape { path: PathBuf, name: String, found: Vec<usize>, expected: Vec<usize> },
    Config { what: String, why: String },
    TooLong { what: String, tokens: usize, limit: usize },
    Hub { repo: String, why: String },
    NoGpu(String),
    Limit { what: String, needed: u64, limit: u64 },
    OutOfMemory { what: String, bytes: u64, held: u64, limit: Option<u64> },
    DeviceLost(String),
    Ranks(String),
    OtherRank { rank: usize, why: String },
    Gpu { what: String, why: String },
    Shader { kernel: String, why: String },
    NoGradient { op: &'static str },
    NonFinite { count: usize },
    SelfCheck(String),
    Judge { name: String, why: String },
    Interrupted,
}
impl Error {
    pub fn io(
        action: &'static str,
        path: impl AsRef<Path>,
    ) -> impl FnOnce(std::io::Error) -> Error {}
    pub fn file(path: impl AsRef<Path>, why: impl Into<String>) -> Error {}
    pub fn config(what: impl Into<String>, why: impl Into<String>) -> Error {}
}
pub type Result<T, E = Error> = std::result::Result<T, E>;
pub type Task<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
#[cfg(not(target_arch = "wasm32"))]
pub trait Wait: Future + Sized {
    fn wait(self) -> Self::Output {}
}
#[cfg(not(target_arch = "wasm32"))]
impl<F: Future> Wait for F {}
#[cfg(not(target_arch = "wasm32"))]
pub fn block_on<F: Future>(future: F) -> F::Output {}

pub mod data {
    #[derive(Clone, Debug, PartialEq, Eq, Setters)]
    #[non_exhaustive]
    pub struct Columns {
        pub prompt: String,
        pub reference: String,
        pub chosen: String,
        pub rejected: String,
        pub completion: String,
        pub text: String,
        pub messages: String,
    }
    impl Default for Columns {}
    #[derive(Clone, Debug, PartialEq)]
    pub struct Completion {
        pub prompt: Option<Text>,
        pub completion: Text,
        pub label: Option<bool>,
        pub token_ids: Option<Vec<u32>>,
    }
    impl Completion {
        pub fn new(prompt: impl Into<Text>, completion: impl Into<Text>) -> Completion {}
    }
    #[derive(Clone, Debug, Default, PartialEq, Serialize)]
    pub struct Conversation {
        pub messages: Vec<Message>,
        pub variables: Arc<Map<String, Value>>,
    }
    #[derive(Clone, Debug, PartialEq, Serialize)]
    pub struct Message {}
    impl TryFrom<&Value> for Message {}
    impl Message {
        pub fn new(role: &str, content: &str) -> Message {}
        pub fn role(&self) -> &str {}
        pub fn text(&self) -> String {}
    }
    #[derive(Clone, Debug, PartialEq)]
    pub struct Pair {
        pub prompt: Text,
        pub chosen: Text,
        pub rejected: Text,
        pub margin: Option<f32>,
    }
    impl Pair {
        pub fn new(
            prompt: impl Into<Text>,
            chosen: impl Into<Text>,
            rejected: impl Into<Text>,
        ) -> Pair {}
    }
    #[derive(Clone, Debug, PartialEq)]
    pub struct Prompt {
        pub prompt: Text,
        pub reference: Option<String>,
    }
    impl<T: Into<Text>> From<T> for Prompt {}
    #[derive(Clone, Debug, Default)]
    pub struct StopMatcher {}
    impl StopMatcher {
        pub fn new(stops: impl IntoIterator<Item = String>) -> StopMatcher {}
        pub fn cut(
            &self,
            tokenizer: &Tokenizer,
            before: &[u32],
            ids: &[u32],
        ) -> Result<Option<String>> {}
    }
    #[derive(Clone, Debug, PartialEq, Serialize)]
    pub enum Text {
        Plain(String),
        Chat(Conversation),
    }
    impl Text {
        pub fn transcript(&self) -> String {}
        pub fn is_empty(&self) -> bool {}
    }
    impl From<&str> for Text {}
    impl From<String> for Text {}
    impl From<Vec<Message>> for Text {}
    #[derive(Clone, Debug)]
    pub struct Tokenizer {}
    impl Tokenizer {
        pub fn load_for(dir: &Path, vocab: usize) -> Result<Tokenizer> {}
        pub fn load(dir: &Path) -> Result<Tokenizer> {}
        pub fn encode(&self, text: &str) -> Result<Vec<u32>> {}
        pub fn encode_beginning(&self, text: &str) -> Result<Vec<u32>> {}
        pub fn encode_plain(&self, text: &str) -> Result<Vec<u32>> {}
        pub fn check(&self, ids: &[u32]) -> Result<()> {}
        pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {}
        pub fn decode_after(
            &self,
            before: &[u32],
            ids: &[u32],
            skip_special: bool,
        ) -> Result<String> {}
        pub fn token_to_id(&self, token: &str) -> Option<u32> {}
        pub fn bos(&self) -> Option<u32> {}
        pub fn padding_of(dir: &Path) -> Result<Option<u32>> {}
        pub fn eos(&self) -> Option<u32> {}
        pub fn eos_text(&self) -> Option<&str> {}
        pub fn eos_ids(&self) -> &[u32] {}
    }
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct Tree {
        pub prompt: Vec<u32>,
        pub responses: Vec<Vec<u32>>,
    }
    impl Tree {
        pub fn rows(&self) -> usize {}
        pub fn targets(&self) -> usize {}
        pub fn length(&self) -> usize {}
        pub fn unshared(&self) -> Vec<Tree> {}
    }
    pub fn read_completions(path: &Path, columns: &Columns) -> Result<Vec<Completion>> {}
    pub fn read_pairs(path: &Path, columns: &Columns) -> Result<Vec<Pair>> {}
    pub fn read_prompts(path: &Path, columns: &Columns) -> Result<Vec<Prompt>> {}
}

pub mod files {
    #[derive(Debug)]
    pub struct MemoryFolder {}
    impl Default for MemoryFolder {}
    impl MemoryFolder {
        pub fn new<N: AsRef<Path>>(
            files: impl IntoIterator<Item = (N, Vec<u8>)>,
        ) -> MemoryFolder {}
        pub fn insert(&self, name: impl AsRef<Path>, content: Vec<u8>) {}
        pub fn path(&self) -> &Path {}
        pub fn files(&self) -> Vec<(PathBuf, Arc<[u8]>)> {}
    }
}

pub mod generate {
    pub struct AnswerStream<'g> {}
    impl<'g> AnswerStream<'g> {
        pub async fn next(&mut self) -> Result<Option<Part>> {}
    }
    pub struct Chat {}
    impl Chat {
        pub fn stopping_at(self, stop: StopMatcher) -> Chat {}
        pub fn with_seed(self, seed: u32) -> Chat {}
        pub fn begin(&mut self, system: Option<&str>) {}
        pub fn messages(&self) -> &[Message] {}
        pub async fn say(&mut self, text: &str) -> Result<ChatAnswer<'_>> {}
    }
    pub struct ChatAnswer<'c> {}
    impl ChatAnswer<'_> {
        pub async fn next(&mut self) -> Result<Option<String>> {}
        pub fn response(&self) -> Option<&Response> {}
    }
    #[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
    #[non_exhaustive]
    pub enum FinishReason {
        Eos,
        Length,
        Stop,
    }
    #[derive(Clone, Debug, Setters)]
    #[non_exhaustive]
    pub struct GenerateOptions {
        pub sampling: SamplingParams,
        pub max_new_tokens: usize,
        pub max_prompt_tokens: usize,
        pub slots: usize,
        pub samples_per_prompt: usize,
        pub eos: Vec<u32>,
    }
    impl Default for GenerateOptions {}
    pub struct Generator {}
    impl Generator {
        pub async fn new(
            gpu: &Gpu,
            model: &Model,
            options: GenerateOptions,
            arena: &Arena,
        ) -> Result<Generator> {}
        pub fn keeping_prompts(self) -> Generator {}
        pub async fn run(
            &self,
            tokenizer: &Tokenizer,
            requests: &[Request],
            stop: &StopMatcher,
            seed: u32,
        ) -> Result<Vec<Vec<Response>>> {}
        pub async fn stream<'s>(
            &'s self,
            tokenizer: &'s Tokenizer,
            requests: &'s [Request],
            stop: &'s StopMatcher,
            seed: u32,
        ) -> Result<AnswerStream<'s>> {}
    }
    #[derive(Clone, Debug, PartialEq)]
    #[non_exhaustive]
    pub struct Part {
        pub request: usize,
        pub sample: usize,
        pub text: String,
        pub response: Option<Response>,
    }
    #[derive(Clone, Debug)]
    pub struct Request {
        pub prompt: Vec<u32>,
        pub samples: usize,
        pub first_sequence: u32,
    }
    impl From<Vec<u32>> for Request {}
    #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    #[non_exhaustive]
    pub struct Response {
        pub token_ids: Vec<u32>,
        pub text: String,
        pub finish_reason: FinishReason,
    }
    #[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize, Setters)]
    #[non_exhaustive]
    pub struct SamplingParams {
        pub temperature: f32,
        pub top_k: u32,
        pub top_p: f32,
        pub min_p: f32,
    }
    impl Default for SamplingParams {}
    impl SamplingParams {
        pub fn check(&self) -> Result<()> {}
    }
}

pub mod gpu {
    #[derive(Clone, Default)]
    pub struct Arena {}
    impl Arena {
        pub fn new() -> Arena {}
    }
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
    #[non_exhaustive]
    pub enum Category {
        Weights,
        Gradients,
        Optimiser,
        Activations,
        KvCache,
        Workspace,
    }
    impl Category {
        pub fn name(self) -> &'static str {}
    }
    pub const FEATURES: wgpu::Features = ..;
    #[derive(Clone)]
    pub struct Gpu {}
    impl Gpu {
        pub async fn release_memory(&self) -> Result<u64> {}
        pub fn memory(&self) -> MemoryReport {}
    }
    impl std::fmt::Debug for Gpu {}
    impl Gpu {
        pub fn destroy(&self) {}
        pub fn is_measuring(&self) -> bool {}
        pub fn summary(&self) -> &GpuSummary {}
        pub fn tier(&self) -> Tier {}
        pub fn subgroup(&self) -> Option<u32> {}
    }
    impl Gpu {
        pub async fn open(options: &GpuOptions) -> Result<Gpu> {}
        pub fn from_device(
            device: wgpu::Device,
            queue: wgpu::Queue,
            options: &GpuOptions,
        ) -> Result<Gpu> {}
        pub fn measuring(&self) -> Gpu {}
    }
    impl Gpu {
        pub async fn idle(&self) -> Result<()> {}
    }
    #[derive(Clone, Debug, Setters)]
    #[non_exhaustive]
    pub struct GpuOptions {
        pub gpu: Option<String>,
        pub tier: Option<Tier>,
        pub checked: bool,
        pub max_binding_bytes: Option<u64>,
        pub profile: bool,
        pub submit_ms: f64,
        pub memory_limit: Option<u64>,
    }
    impl Default for GpuOptions {}
    #[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
    #[non_exhaustive]
    pub struct GpuSummary {
        pub index: usize,
        pub name: String,
        pub backend: String,
        pub kind: String,
        pub driver: String,
    }
    #[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
    #[non_exhaustive]
    pub struct MemoryReport {
        pub bytes: BTreeMap<Category, u64>,
        pub total: u64,
        pub peak: u64,
    }
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
    #[non_exhaustive]
    pub enum Tier {
        Portable,
        Subgroups,
        Cooperative,
    }
    impl Tier {
        pub const ALL: [Tier; 3] = ..;
    }
    impl std::fmt::Display for Tier {}
    pub async fn list_gpus() -> Vec<GpuSummary> {}
    pub fn required_limits(adapter: &wgpu::Adapter) -> wgpu::Limits {}
}

pub mod judge {
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
    #[cfg(feature = "http")]
    pub enum Api {
        Chat,
        Completions,
    }
    impl Api {
        pub fn name(self) -> &'static str {}
    }
    pub struct Desk {}
    impl std::fmt::Debug for Desk {}
    impl Desk {
        pub fn new() -> Desk {}
        pub fn open(path: &Path) -> Result<Desk> {}
        pub fn keep_in(&self, path: &Path) -> Result<()> {}
        pub fn holding(self, hold: Duration) -> Desk {}
        pub fn on_change(&self, listener: impl Fn() -> bool + Send + Sync + 'static) {}
        pub fn prioritise(&self, id: &str, priority: f32) {}
        pub fn withdraw(&self) {}
        pub fn close(&self, why: impl Into<String>) {}
        pub fn view(&self, shown: Option<u64>) -> View {}
        pub fn label(&self, given: GivenLabel) -> std::result::Result<(), Refusal> {}
        pub fn undo(&self, id: &str) -> std::result::Result<Pick, Refusal> {}
        pub fn comment(
            &self,
            id: &str,
            form: u64,
            comment: &str,
        ) -> std::result::Result<(), Refusal> {}
        pub fn wait(&self, seen: u64, patience: Duration) -> u64 {}
    }
    impl Default for Desk {}
    #[derive(Clone, Debug, PartialEq, Deserialize)]
    pub struct GivenLabel {
        pub id: String,
        pub form: u64,
        pub shown_first: u8,
        pub choice: Pick,
        pub comment: Option<String>,
        pub seconds: f64,
    }
    pub struct Human {}
    impl Human {
        pub fn new(desk: Arc<Desk>) -> Human {}
    }
    pub trait IntoJudgeQueue<'a> {}
    impl<'a, A: Judge + 'a> IntoJudgeQueue<'a> for A {}
    impl<'a> IntoJudgeQueue<'a> for super::human::Human {}
    #[cfg(feature = "http")]
    impl<'a> IntoJudgeQueue<'a> for super::openai::OpenAi {}
    #[cfg(not(target_arch = "wasm32"))]
    impl<'a> IntoJudgeQueue<'a> for super::threaded::Threaded {}
    pub trait Judge: Send {
        fn name(&self) -> String;
        fn judge<'t>(
            &'t mut self,
            pairs: &'t [Pair<'t>],
        ) -> Task<'t, Result<Vec<Judgement>>>;
        fn identity(&self) -> Result<BTreeMap<String, String>> {}
        fn position(&self) -> Position {}
        fn rates(&self) -> bool {}
        fn rate<'t>(
            &'t mut self,
            _responses: &'t [Rated<'t>],
        ) -> Task<'t, Result<Vec<Score>>> {}
    }
    impl Judge for LikelihoodJudge {}
    impl Judge for LlmJudge {}
    impl Judge for RewardJudge {}
    impl Judge for Rule {}
    pub struct JudgeModel {
        pub tokenizer: Tokenizer,
        pub scorer: Scorer,
    }
    impl JudgeModel {
        pub async fn load(
            gpu: &Gpu,
            dir: &Path,
            max_length: Option<usize>,
            arena: &Arena,
        ) -> Result<JudgeModel> {}
        pub async fn of_model(
            model: &Model,
            dir: &Path,
            max_length: Option<usize>,
            arena: &Arena,
        ) -> Result<JudgeModel> {}
        pub async fn scorer(
            model: &Model,
            max_length: Option<usize>,
            arena: &Arena,
        ) -> Result<(Scorer, usize)> {}
    }
    #[derive(Clone, Debug)]
    pub struct JudgeTemplate {}
    impl JudgeTemplate {
        pub fn builtin(name: &str) -> Result<JudgeTemplate> {}
        pub fn from_file(path: &Path) -> Result<JudgeTemplate> {}
        pub fn from_text(source: &str) -> Result<JudgeTemplate> {}
        pub fn with_training(self, training: bool) -> JudgeTemplate {}
        pub fn with_instruction(self, instruction: &str) -> Result<JudgeTemplate> {}
        pub fn render(&self, pair: &Pair<'_>) -> Result<String> {}
    }
    #[derive(Clone, Debug, PartialEq)]
    pub struct Judgement {
        pub verdict: Verdict,
        pub p_12: Option<f32>,
        pub p_21: Option<f32>,
        pub votes: Vec<Verdict>,
    }
    impl Judgement {
        pub fn from_orders(p_12: Option<f32>, p_21: Option<f32>) -> Judgement {}
        pub fn turned(&self) -> Judgement {}
        pub fn order_flip(&self) -> bool {}
    }
    impl From<Verdict> for Judgement {}
    #[derive(Clone, PartialEq, Eq)]
    #[cfg(feature = "http")]
    pub struct Key {}
    impl Key {
        pub fn find(env: Option<&str>, file: Option<&Path>) -> Result<Option<Key>> {}
        pub fn from_env(name: &str) -> Result<Option<Key>> {}
        pub fn from_file(path: &Path) -> Result<Key> {}
    }
    impl fmt::Debug for Key {}
    #[derive(Clone, Debug, PartialEq, Serialize)]
    #[non_exhaustive]
    pub struct Last {
        pub id: String,
        pub choice: Pick,
        pub undoable: bool,
    }
    pub struct LikelihoodJudge {}
    impl LikelihoodJudge {
        pub async fn new(
            judge: JudgeModel,
            template: &str,
            instruction: &str,
            normalise: Normalise,
            name: &str,
        ) -> Result<LikelihoodJudge> {}
        pub fn of_whole_responses(self) -> LikelihoodJudge {}
    }
    pub struct LlmJudge {}
    impl LlmJudge {
        pub async fn new(
            mut judge: JudgeModel,
            template: JudgeTemplate,
            orders: Orders,
            name: &str,
        ) -> Result<LlmJudge> {}
    }
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
    pub enum Normalise {
        Sum,
        Token,
        Character,
    }
    #[cfg(feature = "http")]
    pub struct OpenAi {}
    impl OpenAi {
        pub fn new(options: OpenAiOptions, template: JudgeTemplate) -> Result<OpenAi> {}
    }
    impl fmt::Debug for OpenAi {}
    #[derive(Clone, Debug, Setters)]
    #[non_exhaustive]
    #[cfg(feature = "http")]
    pub struct OpenAiOptions {
        pub model: String,
        pub api: Api,
        pub system: Option<String>,
        pub orders: Orders,
        pub log_probabilities: bool,
        pub most_probable: u32,
        pub reasons: bool,
        pub max_tokens: u32,
        pub ties: bool,
        pub temperature: f64,
        pub rating: Option<RatingTemplate>,
        pub pointwise: bool,
        pub urls: Vec<String>,
        pub key: Option<Key>,
        pub connect_timeout: Duration,
        pub timeout: Duration,
        pub retries: u32,
        pub backoff: Duration,
        pub patience: Duration,
        pub break_after: u32,
        pub break_for: Duration,
        pub concurrency: usize,
        pub requests_per_minute: Option<u32>,
        pub tokens_per_minute: Option<u32>,
        pub max_requests: Option<u64>,
        pub max_cost: Option<f64>,
        pub price_prompt: f64,
        pub price_completion: f64,
        pub cache: Option<PathBuf>,
    }
    impl Default for OpenAiOptions {}
    impl OpenAiOptions {
        pub fn check(&self) -> Result<()> {}
    }
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
    #[non_exhaustive]
    pub enum Orders {
        Both,
        One,
    }
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Pair<'a> {
        pub prompt: &'a str,
        pub response_1: &'a str,
        pub response_2: &'a str,
    }
    impl Pair<'_> {
        pub fn swapped(self) -> Self {}
    }
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
    #[non_exhaustive]
    pub enum Pick {
        First,
        Second,
        Tie,
        Skip,
    }
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
    pub enum Position {
        Settled,
        Given,
        Untold,
    }
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Rated<'a> {
        pub prompt: &'a str,
        pub response: &'a str,
    }
    #[derive(Clone, Debug)]
    #[cfg(feature = "http")]
    pub struct RatingTemplate {}
    impl RatingTemplate {
        pub fn builtin() -> RatingTemplate {}
        pub fn from_text(source: &str) -> Result<RatingTemplate> {}
        pub fn from_file(path: &Path) -> Result<RatingTemplate> {}
        pub fn with_instruction(self, instruction: &str) -> Result<RatingTemplate> {}
        pub fn render(&self, rated: &Rated<'_>) -> Result<String> {}
    }
    #[derive(Debug, thiserror::Error)]
    #[non_exhaustive]
    pub enum Refusal {
        Gone,
        Labelled,
        Stale,
        NothingToUndo,
        TooLate,
        NotTheLast,
        LongComment,
        Closed(String),
        Unwritten(Error),
    }
    pub struct RewardJudge {}
    impl RewardJudge {
        pub async fn new(
            model: &Model,
            dir: &Path,
            adapter: Option<&Path>,
            append_eos: bool,
            max_length: Option<usize>,
            name: &str,
        ) -> Result<RewardJudge> {}
    }
    #[derive(Clone, Debug)]
    pub struct Rule {}
    impl Rule {
        pub fn parse(text: &str) -> Result<Rule> {}
    }
    #[derive(Clone, Debug, PartialEq)]
    pub enum Score {
        Value(f32),
        Invalid { why: String },
    }
    #[derive(Clone, Debug, PartialEq, Serialize)]
    #[non_exhaustive]
    pub struct Shown {
        pub id: String,
        pub form: u64,
        pub prompt: String,
        pub first: String,
        pub second: String,
        pub shown_first: u8,
        pub comment: String,
    }
    #[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
    #[non_exhaustive]
    pub struct Tally {
        pub open: usize,
        pub given: usize,
        pub ties: usize,
        pub skipped: usize,
        pub per_minute: Option<f64>,
        pub seconds_left: Option<f64>,
    }
    #[cfg(not(target_arch = "wasm32"))]
    pub struct Threaded {}
    impl Threaded {
        pub fn new(mut judge: impl Judge + 'static) -> Result<Threaded> {}
    }
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub enum Verdict {
        First { p: f32 },
        Second { p: f32 },
        Tie,
        Invalid { why: String },
    }
    impl Verdict {
        pub fn from_probability(p: f32) -> Verdict {}
        pub fn p_first(&self) -> Option<f32> {}
        pub fn turned(&self) -> Verdict {}
        pub fn label(&self) -> &'static str {}
    }
    #[derive(Clone, Debug, Default, PartialEq, Serialize)]
    #[non_exhaustive]
    pub struct View {
        pub pair: Option<Shown>,
        pub counts: Tally,
        pub last: Option<Last>,
        pub closed: Option<String>,
    }
}

pub mod model {
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
    pub struct Capacity {
        pub tokens: usize,
        pub targets: usize,
        pub sequences: usize,
    }
    impl Capacity {
        pub fn of(trees: &[Tree]) -> Capacity {}
        pub fn holds(self, other: Capacity) -> bool {}
    }
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
    #[non_exhaustive]
    pub enum FloatFormat {
        F32,
        F16,
        Bf16,
    }
    impl FloatFormat {
        pub fn parse(name: &str) -> Option<FloatFormat> {}
        pub fn name(self) -> &'static str {}
        pub fn bytes(self) -> usize {}
    }
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    #[non_exhaustive]
    pub enum FrozenFormat {
        Float(FloatFormat),
        Q8,
        Q4,
    }
    impl From<FloatFormat> for FrozenFormat {}
    impl FrozenFormat {
        pub fn parse(name: &str) -> Option<FrozenFormat> {}
        pub fn name(self) -> &'static str {}
    }
    impl FrozenFormat {
        pub fn of_model(dir: &Path) -> Result<FrozenFormat> {}
    }
    #[derive(Clone, Debug, PartialEq, Setters)]
    #[non_exhaustive]
    pub struct LoraConfig {
        pub rank: usize,
        pub alpha: f32,
        pub rank_stabilised: bool,
        pub targets: LoraTargets,
    }
    impl LoraConfig {
        pub fn new(rank: usize) -> LoraConfig {}
    }
    #[derive(Clone, Debug, PartialEq, Eq)]
    #[non_exhaustive]
    pub enum LoraTargets {
        AllLinear,
        Named(Vec<String>),
    }
    impl LoraTargets {
        pub fn parse<S: AsRef<str>>(names: &[S]) -> Result<LoraTargets> {}
    }
    impl std::fmt::Display for LoraTargets {}
    #[derive(Clone)]
    pub struct Model {}
    impl Model {
        pub fn add_adapter(&self, config: LoraConfig, seed: u32) -> Result<Model> {}
        pub fn load_adapter(&self, dir: &Path, train: bool) -> Result<Model> {}
        pub async fn merge_adapter(&self) -> Result<Model> {}
        pub async fn save_adapter(&self, dir: &Path, base_model: &Path) -> Result<()> {}
    }
    impl Model {
        pub fn warnings(&self) -> impl Iterator<Item = &str> {}
        pub fn without_adapter(&self) -> Model {}
        pub async fn snapshot(&self) -> Result<Model> {}
        pub async fn snapshot_as(&self, format: FrozenFormat) -> Result<Model> {}
        pub fn gpu(&self) -> &Gpu {}
        pub fn context(&self) -> usize {}
        pub fn vocabulary(&self) -> usize {}
    }
    impl Model {
        pub async fn load(gpu: &Gpu, dir: &Path, train: bool) -> Result<Model> {}
        pub async fn load_reward(
            gpu: &Gpu,
            dir: &Path,
            adapter: Option<&Path>,
            format: Option<FrozenFormat>,
        ) -> Result<Model> {}
        pub fn rates(dir: &Path, adapter: Option<&Path>) -> Result<bool> {}
        pub async fn load_into_reward(
            gpu: &Gpu,
            dir: &Path,
            format: Option<FrozenFormat>,
            padding: Option<u32>,
            seed: u32,
        ) -> Result<Model> {}
        pub async fn load_frozen(
            gpu: &Gpu,
            dir: &Path,
            format: Option<FrozenFormat>,
        ) -> Result<Model> {}
        pub async fn save(
            &self,
            dir: &Path,
            source: Option<&Path>,
            format: FloatFormat,
        ) -> Result<()> {}
    }
    #[derive(Clone, Debug, Default, PartialEq)]
    pub struct Scored {
        pub logps: Vec<f32>,
        pub entropies: Vec<f32>,
    }
    impl Scored {
        pub fn logp(&self) -> f64 {}
    }
    pub struct Scorer {}
    impl Scorer {
        pub async fn new(
            gpu: &Gpu,
            model: &Model,
            capacity: Capacity,
            arena: &Arena,
        ) -> Result<Scorer> {}
        pub async fn after(
            gpu: &Gpu,
            model: &Model,
            preamble: &[u32],
            capacity: Capacity,
            arena: &Arena,
        ) -> Result<Scorer> {}
        pub fn capacity(&self) -> Capacity {}
        pub async fn score(&self, trees: &[Tree]) -> Result<Vec<Scored>> {}
    }
}

pub mod preference {
    #[derive(Clone, Debug, PartialEq)]
    pub struct Objective {
        pub losses: Vec<(PreferenceLoss, f32)>,
        pub label_smoothing: f32,
        pub use_weighting: bool,
        pub ld_alpha: Option<f32>,
        pub rpo_alpha: Option<f32>,
    }
    impl From<PreferenceLoss> for Objective {}
    impl From<&Objective> for Objective {}
    impl Objective {
        pub fn check(&self) -> Result<()> {}
        pub fn check_soft_labels(&self) -> Result<()> {}
        pub fn beta(&self) -> f32 {}
        pub fn needs_reference(&self) -> bool {}
        pub fn needs_reference_samples(&self) -> bool {}
    }
    impl fmt::Display for Objective {}
    #[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
    #[non_exhaustive]
    pub enum PreferenceLoss {
        Dpo { beta: f32 },
        Ipo { beta: f32, average_tokens: bool },
        Slic { beta: f32 },
        Robust { beta: f32 },
        ExoPair { beta: f32 },
        NcaPair { beta: f32 },
        BcoPair { beta: f32 },
        SppoHard { beta: f32 },
        Aot { beta: f32 },
        AotUnpaired { beta: f32 },
        ApoZero { beta: f32 },
        ApoDown { beta: f32 },
        Discopop { beta: f32, tau: f32 },
        SigmoidNorm { beta: f32 },
        Simpo { beta: f32, gamma: f32 },
        Cpo { beta: f32, alpha: f32 },
        Orpo { beta: f32 },
        Kto { beta: f32, desirable_weight: f32, undesirable_weight: f32 },
        Rdpo { beta: f32, alpha: f32 },
        Xpo { beta: f32, alpha: f32 },
        Sft,
    }
    impl PreferenceLoss {
        pub fn parse(
            name: &str,
            beta: Option<f32>,
            average_tokens: bool,
        ) -> Result<PreferenceLoss> {}
        pub fn name(self) -> &'static str {}
        pub fn beta(self) -> f32 {}
        pub fn averages_tokens(self) -> bool {}
        pub fn needs_reference(self) -> bool {}
    }
    impl fmt::Display for PreferenceLoss {}
}

pub mod train {
    #[derive(Clone, Debug, Setters)]
    #[non_exhaustive]
    pub struct AlignOptions {
        pub loss: OnlineLoss,
        pub sampling: SamplingParams,
        pub max_new_tokens: usize,
        pub num_samples: usize,
        pub slots: Option<usize>,
        pub stop: Vec<String>,
        pub soft_labels: bool,
        pub pairs: PairChoice,
        pub min_confidence: f32,
        pub active: usize,
        pub probes: usize,
        pub max_invalid_ratio: f64,
        pub async_level: usize,
    }
    impl AlignOptions {
        pub fn new(loss: impl Into<OnlineLoss>) -> AlignOptions {}
    }
    pub struct Control<'a> {
        pub observer: &'a mut dyn Observer,
        pub requests: &'a Requests,
    }
    #[derive(Clone, Debug, Setters)]
    #[non_exhaustive]
    pub struct DpoOptions {
        pub loss: Objective,
        pub append_eos: bool,
    }
    impl DpoOptions {
        pub fn new(loss: impl Into<Objective>) -> DpoOptions {}
    }
    pub trait Observer: Send {
        fn phase(&mut self, _name: &str) {}
        fn logged(&mut self, _row: &Value) {}
        fn step(&mut self, _report: &StepReport) {}
        fn warning(&mut self, _text: &str) {}
    }
    impl Observer for () {}
    #[derive(Clone, Debug, PartialEq)]
    #[non_exhaustive]
    pub enum OnlineLoss {
        Preference(Objective),
        Policy(PolicyLoss),
    }
    impl From<Objective> for OnlineLoss {}
    impl From<PreferenceLoss> for OnlineLoss {}
    impl From<PolicyLoss> for OnlineLoss {}
    impl OnlineLoss {
        pub fn preference(&self) -> Option<&Objective> {}
    }
    #[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
    #[non_exhaustive]
    pub enum OptimiserKind {
        AdamW { beta1: f32, beta2: f32, epsilon: f32, weight_decay: f32 },
        Adafactor { weight_decay: f32 },
    }
    impl OptimiserKind {
        pub fn adamw() -> OptimiserKind {}
    }
    #[derive(
        Clone,
        Copy,
        Debug,
        Default,
        PartialEq,
        Eq,
        serde::Serialize,
        serde::Deserialize
    )]
    #[non_exhaustive]
    pub enum PairChoice {
        BestWorst,
        All,
    }
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[non_exhaustive]
    pub struct PairReport {
        pub step: usize,
        pub policy_step: usize,
        pub prompt: String,
        pub response_1: String,
        pub response_2: String,
        pub skipped: Option<String>,
        pub chosen: Option<u8>,
    }
    #[derive(Clone)]
    pub struct Policy {
        pub model: Model,
        pub tokenizer: Arc<Tokenizer>,
        pub dir: PathBuf,
    }
    impl Policy {
        pub async fn load(gpu: &Gpu, dir: &Path, options: &TrainOptions) -> Result<Policy> {}
        pub async fn frozen(
            gpu: &Gpu,
            dir: &Path,
            adapter: Option<&Path>,
            base_dtype: Option<FrozenFormat>,
        ) -> Result<Policy> {}
        pub fn with_model(model: Model, dir: &Path) -> Result<Policy> {}
        pub fn generate_options(&self) -> GenerateOptions {}
        pub async fn generator(&self, options: GenerateOptions) -> Result<Generator> {}
        pub fn request(&self, prompt: impl Into<Text>) -> Result<Request> {}
        pub fn chat(&self, options: GenerateOptions) -> Result<Chat> {}
        pub async fn score(
            &self,
            prompt: impl Into<Text>,
            responses: &[&str],
        ) -> Result<Vec<Scored>> {}
        pub async fn save(&self, dir: &Path) -> Result<()> {}
        pub async fn reference(&self, options: &TrainOptions) -> Result<Model> {}
    }
    impl Policy {
        pub async fn load_for_reward(
            gpu: &Gpu,
            dir: &Path,
            options: &TrainOptions,
        ) -> Result<Policy> {}
    }
    #[derive(Clone, Copy, Debug, PartialEq)]
    pub struct PolicyLoss {
        pub beta: f32,
        pub epsilon: f32,
        pub epsilon_high: f32,
    }
    impl PolicyLoss {
        pub fn rloo() -> PolicyLoss {}
        pub fn grpo() -> PolicyLoss {}
        pub fn name(&self) -> &'static str {}
        pub fn check(&self) -> Result<()> {}
        pub fn advantages(&self, scores: &[Option<f64>]) -> Vec<f64> {}
    }
    #[derive(Clone, Copy, Debug, PartialEq)]
    pub struct ReferenceSync {
        pub alpha: f32,
        pub steps: usize,
    }
    #[derive(Debug, Default)]
    pub struct Requests {}
    impl Requests {
        pub const fn new() -> Requests {}
        pub fn ask_to_stop(&self) {}
        pub fn ask_to_pause(&self, pause: bool) {}
        pub fn ask_to_save(&self) {}
        pub fn ask_to_cancel(&self) {}
        pub fn stops(&self) -> bool {}
        pub fn pauses(&self) -> bool {}
        pub fn saves(&self) -> bool {}
        pub fn take_save(&self) -> bool {}
    }
    #[derive(Clone, Debug, Setters)]
    #[non_exhaustive]
    pub struct RewardOptions {
        pub center_rewards_coefficient: f32,
        pub append_eos: bool,
    }
    impl Default for RewardOptions {}
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    #[non_exhaustive]
    pub enum ScheduleKind {
        Linear,
        Cosine,
        Constant,
        ConstantWithWarmup,
    }
    impl ScheduleKind {
        pub fn name(self) -> &'static str {}
    }
    impl FromStr for ScheduleKind {}
    #[derive(Clone, Debug, Default, Serialize)]
    #[non_exhaustive]
    pub struct StepReport {
        pub step: usize,
        pub total_steps: usize,
        pub loss: Option<f64>,
        pub entropy: Option<f64>,
        pub epoch: f64,
        pub num_tokens: u64,
        pub non_finite_steps: usize,
        pub device_bytes: u64,
        pub pairs: Vec<PairReport>,
        pub notes: Vec<String>,
        pub seconds_left: Option<f64>,
    }
    impl StepReport {
        pub fn margin(&self) -> Option<f64> {}
        pub fn first_preferred(&self) -> Option<f64> {}
    }
    #[derive(Clone, Debug, Setters)]
    #[non_exhaustive]
    pub struct TrainOptions {
        pub output_dir: Option<PathBuf>,
        pub overwrite: bool,
        pub allow_changes: Vec<String>,
        pub learning_rate: f64,
        pub schedule: ScheduleKind,
        pub warmup_steps: usize,
        pub warmup_ratio: f64,
        pub batch_size: usize,
        pub accumulation: usize,
        pub max_steps: Option<usize>,
        pub epochs: f64,
        pub lora: Option<LoraConfig>,
        pub adapter: Option<PathBuf>,
        pub reference_sync: Option<ReferenceSync>,
        pub base_dtype: Option<FrozenFormat>,
        pub optimiser: OptimiserKind,
        pub max_grad_norm: f32,
        pub seed: u32,
        pub save_steps: Option<usize>,
        pub save_total_limit: Option<usize>,
        pub tensorboard: bool,
        pub gradient_checkpointing: bool,
        pub shuffle: bool,
        pub max_prompt_length: Option<usize>,
        pub max_length: Option<usize>,
        pub shard_optimiser: bool,
    }
    impl Default for TrainOptions {}
    impl TrainOptions {
        pub fn output_dir(self, dir: impl Into<PathBuf>) -> TrainOptions {}
    }
    pub struct Trainer<'a> {}
    impl Trainer<'static> {
        pub async fn supervised(
            policy: Policy,
            rows: &[Completion],
            train: &TrainOptions,
        ) -> Result<Trainer<'static>> {}
        pub async fn offline(
            policy: Policy,
            pairs: &[Pair],
            train: &TrainOptions,
            options: &DpoOptions,
        ) -> Result<Trainer<'static>> {}
        pub async fn reward(
            policy: Policy,
            pairs: &[Pair],
            train: &TrainOptions,
            options: &RewardOptions,
        ) -> Result<Trainer<'static>> {}
    }
    impl<'a> Trainer<'a> {
        pub async fn online(
            policy: Policy,
            prompts: &[Prompt],
            judge: impl IntoJudgeQueue<'a>,
            train: &TrainOptions,
            options: &AlignOptions,
        ) -> Result<Trainer<'a>> {}
    }
    impl Trainer<'_> {
        pub async fn save(&self, dir: &Path) -> Result<()> {}
        pub fn resume(&mut self, dir: &Path) -> Result<()> {}
    }
    impl<'a> Trainer<'a> {
        pub fn policy(&self) -> &Policy {}
        pub fn into_policy(self) -> Policy {}
        pub fn warnings(&self) -> Vec<String> {}
        pub fn steps_done(&self) -> usize {}
        pub fn total_steps(&self) -> usize {}
        pub fn is_done(&self) -> bool {}
        pub async fn step(&mut self) -> Result<Option<StepReport>> {}
        pub fn requests(&self) -> Arc<Requests> {}
        pub async fn step_with(
            &mut self,
            control: &mut Control<'_>,
        ) -> Result<Option<StepReport>> {}
    }
}
