//! Temporary driver.
use lare_train::run::*;
use lare_train::metrics::StepRecord;
struct H(std::time::Instant, usize);
impl Hooks for H {
    fn step(&mut self, done: usize, of: usize, r: &StepRecord) {
        if r.rows_per_second > 0.0 {
            let f = |v: &Vec<f64>| v.iter().map(|x| format!("{x:.2}")).collect::<Vec<_>>().join(" ");
            let t: String = r.terms.iter().chain(&r.reading).map(|(n, v)| format!(" {n} {v:.3}")).collect();
            println!("{:6.0}s {done}/{of} {} lr {:.1e} gn {:.2}{t} right {:.3} {:.0}/s", self.0.elapsed().as_secs_f64(), r.stage, r.rate, r.gradient_norm, r.right.unwrap_or(0.0), r.rows_per_second);
            if let Some(h) = &r.health { println!("        hit {} | mass {} | ent {} | cos {} | gate {}", f(&h.region_hit), f(&h.region_mass), f(&h.focus_entropy), f(&h.collapse_cosine), f(&h.gate)); }
        }
        self.1 = done;
    }
    fn validation(&mut self, step: usize, right: &[(String, f64)]) {
        println!("VAL {step} {}", right.iter().map(|(k, v)| format!("{k} {:.3}", v)).collect::<Vec<_>>().join(", "));
    }
    fn stop(&self) -> bool { std::path::Path::new("/tmp/stop-train").exists() }
}
#[global_allocator]
static A: mimalloc::MiMalloc = mimalloc::MiMalloc;
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let text = std::fs::read_to_string(&a[1]).unwrap();
    let config = lare_train::Config::from_toml(&text, &a[1]).unwrap_or_else(|e| panic!("{e}"));
    let suite = lare_data::Suite::new();
    let json = lare_data::tokenizer::build();
    let tok = lare_data::Tokenizer::from_bytes(json.as_bytes()).unwrap();
    println!("vocab {}", tok.vocab_size());
    let specs = lare_model::specifications(&config.model).unwrap();
    println!("params {}", specs.iter().map(|s| s.shape.iter().product::<usize>()).sum::<usize>());
    let setting = Setting { folder: std::path::Path::new(&a[2]), resume: a.iter().any(|x| x == "--resume"), init: a.iter().position(|x| x == "--init").map(|i| std::path::Path::new(&a[i + 1])), device: candle_core::Device::Cpu, suite: &suite, tokenizer: (&tok, &json) };
    let e = train(&config, &setting, &mut H(std::time::Instant::now(), 0)).unwrap_or_else(|e| panic!("{e}"));
    println!("{e:?}");
}
