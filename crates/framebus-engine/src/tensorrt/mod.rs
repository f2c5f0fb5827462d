//! Inference on NVIDIA GPUs with TensorRT.
//!
//! Driver and library are opened at run time ([`TensorRt::probe`] says what is missing);
//! nothing of NVIDIA's is linked. Frames go to the GPU once, as they lie in shared memory;
//! letterbox, network and decode run there, and only candidate boxes come back
//! ([`framebus_cuda`] has that path). An engine is built for one input, one GPU and one
//! version of the library, which takes minutes, and is then kept ([`artifact`]).
//!
//! A *lane* is one of TensorRT's execution contexts on a stream of its own. Two of our
//! contexts share one, so that the frames of the next batch travel while the network works
//! on this one.

mod artifact;
mod builder;
mod context;
mod engine;
mod here;
mod network;
mod reference;

use crate::api::{Backend, Engine, EngineError, LoadOptions, Shape};
use crate::building::{Build, Built};
use crate::plan::{self, Plan};
use builder::Builder;
use engine::TensorRtEngine;
use framebus_model::{Model, OutputLayout};
use here::Here;

/// Name in the configuration and in results.
pub const NAME: &str = "tensorrt";

/// The backend; holds nothing, the libraries are opened when they are first needed.
#[derive(Debug, Clone, Copy, Default)]
pub struct TensorRt;

impl Backend for TensorRt {
    fn name(&self) -> &'static str {
        NAME
    }

    fn probe(&self, options: &LoadOptions) -> Result<String, EngineError> {
        Here::look(&options.tensorrt).map(|here| here.to_string())
    }

    fn load(&self, model: &Model, options: &LoadOptions) -> Result<Box<dyn Engine>, EngineError> {
        let here = Here::look(&options.tensorrt)?;
        first(model, options, |plan| {
            let builder = Builder::new(plan, &here, options)?;
            TensorRtEngine::load(plan.clone(), builder, &here, options)
                .map(|engine| Box::new(engine) as Box<dyn Engine>)
        })
    }

    fn build(
        &self,
        model: &Model,
        options: &LoadOptions,
        shapes: &[Shape],
        again: bool,
    ) -> Result<Vec<Built>, EngineError> {
        let here = Here::look(&options.tensorrt)?;
        let options = LoadOptions { build: Build::Now, ..options.clone() };
        first(model, &options, |plan| {
            let builder = Builder::new(plan, &here, &options)?;
            let base = [plan.base];
            let mut built: Vec<Built> = Vec::new();
            for &shape in if shapes.is_empty() { &base } else { shapes } {
                if built.iter().any(|known| known.shape == shape) {
                    continue;
                }
                plan.accepts(shape)?;
                built.push(builder.ensure(shape, again)?);
            }
            Ok(built)
        })
    }
}

/// What `try_plan` makes of the first of the model's plans that it can do something with.
/// One whose head cannot be cut off, or whose cut form TensorRT does not take, runs whole;
/// that is not known before somebody has tried, so an engine that is not built yet may
/// have one of the whole model in its place. The first plan's error is the answer.
fn first<T>(
    model: &Model,
    options: &LoadOptions,
    try_plan: impl Fn(&Plan) -> Result<T, EngineError>,
) -> Result<T, EngineError> {
    let plans = plan::plans(NAME, model, options)?;
    let mut not_built = None;
    let mut plans = plans.iter().peekable();
    while let Some(plan) = plans.next() {
        let last = plans.peek().is_none();
        match try_plan(plan) {
            // Only what the library says of this form of the model is another for the next.
            Err(error @ EngineError::Load { .. }) if !last => {
                let cut = plan.model.layout() == OutputLayout::Heads;
                tracing::warn!(cut, reason = %error, "TensorRT refused the model, trying it whole");
            }
            Err(error @ EngineError::NotBuilt { .. }) if !last && options.build == Build::Later => {
                not_built = Some(error);
            }
            Err(error) => return Err(not_built.unwrap_or(error)),
            done => return done,
        }
    }
    Err(not_built.unwrap_or_else(|| failed(model.name(), "there is no form of it to try")))
}

/// An error about the model or its engine, in the library's words.
fn failed(model: &str, reason: impl ToString) -> EngineError {
    EngineError::Load { backend: NAME, model: model.to_owned(), reason: reason.to_string() }
}

/// An error of the GPU itself, whatever the model: with what is behind it.
fn unavailable(error: &dyn std::error::Error) -> EngineError {
    let mut reason = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        reason = format!("{reason}: {cause}");
        source = cause.source();
    }
    EngineError::Unavailable { backend: NAME, reason }
}
