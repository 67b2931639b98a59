//! Objective, optimizer, schedule, step and trainer for pretraining.
