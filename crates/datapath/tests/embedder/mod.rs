//! A process that embeds the datapath: this test executable once more, told by its environment to be
//! one. It opens the datapath with pins, attaches what is there, applies a plan, and tends it until
//! it is killed.

use std::{
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

use flowgate_datapath::{Backend, Datapath, HookKind, Options};
use flowgate_lab::{Node, Pod};

use crate::pods;

/// The variable that makes an embedding process of the test executable.
const VARIABLE: &str = "FLOWGATE_EMBEDDER";
/// How long it may take to get ready, generously.
const PATIENCE: Duration = Duration::from_secs(60);

/// What it says when it has come so far.
const STAGES: [&str; 4] = ["begun", "opened", "attached", "applied"];

/// What an embedding process has to know.
pub(crate) struct Setting {
    pins: PathBuf,
    hook: HookKind,
    links: Vec<(String, [u8; 6])>,
}

impl Setting {
    pub(crate) fn new(node: &Node, pods: &[Pod], hook: HookKind) -> Self {
        let links = pods.iter().map(|pod| (pod.host_interface().to_owned(), pod.mac().0));
        Self { pins: node.bpffs().join("flowgate"), hook, links: links.collect() }
    }

    /// The directory of its pins.
    pub(crate) fn pins(&self) -> &Path {
        &self.pins
    }

    fn encode(&self, variant: usize) -> String {
        let mut text = format!("{} {} {variant}", self.pins.display(), self.hook);
        for (name, mac) in &self.links {
            let bytes: Vec<String> = mac.iter().map(ToString::to_string).collect();
            text += &format!(" {name} {}", bytes.join(":"));
        }
        text
    }

    fn decode(text: &str) -> Option<(Self, usize)> {
        let mut words = text.split(' ');
        let pins = words.next()?.into();
        let hook = if words.next()? == "TCX" { HookKind::Tcx } else { HookKind::Clsact };
        let variant = words.next()?.parse().ok()?;
        let mut links = Vec::new();
        while let (Some(name), Some(mac)) = (words.next(), words.next()) {
            let bytes: Vec<u8> = mac.split(':').filter_map(|byte| byte.parse().ok()).collect();
            links.push((name.to_owned(), bytes.try_into().ok()?));
        }
        Some((Self { pins, hook, links }, variant))
    }

    /// Opens the datapath in this process, attaches everything and applies a plan.
    pub(crate) fn open(&self, variant: usize) -> Datapath {
        self.open_telling(variant, |_| {})
    }

    fn open_telling(&self, variant: usize, tell: impl Fn(&str)) -> Datapath {
        tell("begun");
        let builder = Datapath::builder().backend(Backend::Kernel).options(options());
        let mut datapath = builder.pin(&self.pins).open().expect("opens");
        tell("opened");
        for (index, (interface, mac)) in self.links.iter().enumerate() {
            let spec = pods::endpoint(index, interface, *mac, self.hook);
            let _ = datapath.attach(&spec).expect("attaches");
        }
        let plan = pods::variant(variant);
        tell("attached");
        let applied = datapath.apply(&plan).expect("fits");
        assert_eq!(applied.ready.len(), self.links.len());
        tell("applied");
        datapath
    }
}

/// Room for many short flows, so that none is refused for want of it.
fn options() -> Options {
    Options { flows4: 1 << 16, flows6: 1 << 16, ..Options::default() }
}

/// The embedding process's own side.
pub(crate) fn run() {
    let text = std::env::var(VARIABLE).expect("started by another test, which says what to do");
    let (setting, variant) = Setting::decode(&text).expect("a setting");
    // Who started it and is gone holds the other end no more.
    thread::spawn(|| {
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(1);
    });
    let mut datapath = setting.open_telling(variant, |stage| println!("stage {stage}"));
    loop {
        datapath.sweep().expect("runs");
        thread::sleep(Duration::from_millis(5));
    }
}

/// When a process is killed: some time after it has come to a stage.
pub(crate) struct Moment {
    stage: &'static str,
    then: Duration,
}

impl Moment {
    /// The moments go through all stages, at other distances from each every time.
    pub(crate) fn of(round: usize) -> Self {
        let stage = STAGES[round % STAGES.len()];
        // How long the stages last, roughly: where the kill falls is all that depends on it.
        let lasts = [600_000, 20_000, 100_000, 30_000][round % STAGES.len()];
        let scattered = (round as u64 / 4 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        Self { stage, then: Duration::from_micros((scattered * lasts) >> 32) }
    }
}

/// The other side: a process that was started.
pub(crate) struct Embedder {
    child: Child,
    stages: Receiver<String>,
}

impl Embedder {
    /// Starts one in this thread's namespaces.
    pub(crate) fn start(setting: &Setting, variant: usize) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this executable"))
            .args(["--exact", "embedding_process", "--ignored", "--nocapture"])
            .env(VARIABLE, setting.encode(variant))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let (tell, stages) = channel();
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if let Some((_, stage)) = line.split_once("stage ") {
                    let _ = tell.send(stage.to_owned());
                }
            }
        });
        Self { child, stages }
    }

    /// Waits until it has come to a stage.
    pub(crate) fn wait_for(&self, stage: &str) {
        while self.stages.recv_timeout(PATIENCE).expect("it gets ready") != stage {}
    }

    /// Kills it at a moment; returns which stage it had come to.
    pub(crate) fn kill_at(mut self, moment: Moment) -> String {
        self.wait_for(moment.stage);
        thread::sleep(moment.then);
        self.child.kill().expect("it runs");
        let status = self.child.wait().expect("it was started");
        assert_eq!(status.code(), None, "it ended by itself: {status}");
        self.stages.try_iter().last().unwrap_or_else(|| moment.stage.to_owned())
    }
}

/// None outlives its test.
impl Drop for Embedder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
