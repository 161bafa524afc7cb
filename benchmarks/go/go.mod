module plexd/benchmarks

go 1.19
