//! A TEST's double of TensorRT 10: its C++ classes as tables of functions, by the slots
//! that TensorRT 10's headers give them. An engine is the ONNX with its profiles, and
//! OpenVINO runs it on the CPU. Slots that the product has no use for end the process
//! with a message that names them.

mod builder;
mod config;
mod execution;
mod logger;
mod network;
mod object;
mod onnx;
mod openvino;
mod parser;
mod plan;
mod runtime;
#[cfg(test)]
mod tests;
