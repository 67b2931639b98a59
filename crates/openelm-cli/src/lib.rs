//! The openelm program: arguments, configuration files, progress.
