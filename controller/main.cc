// flowkeep-controller: keeps chains, and has nodes run them.
#include <getopt.h>
#include <signal.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "controller/function_validation.h"
#include "controller/service.h"

namespace {

using namespace flowkeep;

constexpr int kExitFailed = 1;
constexpr int kExitUsage = 2;

constexpr const char* kHelp = R"(usage: flowkeep-controller [--listen HOST:PORT] --store PATH.db

Keeps the desired chains in an SQLite file, serves the flowkeep.v1 gRPC API (with reflection and the
standard health service), and has the nodes that register with it run the chains. It is not in the
packet path: nodes go on forwarding while it is away.

  --listen HOST:PORT  address of the API; default 127.0.0.1:7470. The API asks for no password:
                      use an address that only trusted clients can reach
  --store PATH.db     the file that holds chains, revisions, nodes and events; made if missing
  --version           print the version
  --help              print this

SIGTERM and SIGINT stop it; whatever it acknowledged is on the disk even after kill -9.
Exit codes: 0 stopped by a signal, 1 failed, 2 wrong arguments or an address or file that cannot be used.
)";

struct Options {
  std::string listen = "127.0.0.1:7470";
  std::string store;
};

// Ends the process for --help, --version and errors.
Options parse(int argc, char** argv) {
  static const option kOptions[] = {{"listen", required_argument, nullptr, 'l'},
                                    {"store", required_argument, nullptr, 's'},
                                    {"version", no_argument, nullptr, 'v'},
                                    {"help", no_argument, nullptr, 'h'},
                                    {nullptr, 0, nullptr, 0}};
  Options options;
  int chosen = 0;
  while ((chosen = getopt_long(argc, argv, "h", kOptions, nullptr)) != -1) {
    switch (chosen) {
      case 'l':
        options.listen = optarg;
        break;
      case 's':
        options.store = optarg;
        break;
      case 'v':
        std::printf("flowkeep-controller %s\n", FLOWKEEP_VERSION);
        std::exit(0);
      case 'h':
        std::fputs(kHelp, stdout);
        std::exit(0);
      default:
        std::fputs("see flowkeep-controller --help\n", stderr);
        std::exit(kExitUsage);
    }
  }
  if (optind < argc || options.store.empty()) {
    std::fprintf(stderr, "flowkeep-controller: %s; see --help\n",
                 optind < argc ? "arguments without an option are not accepted"
                               : "--store PATH.db is missing");
    std::exit(kExitUsage);
  }
  return options;
}

int fail(const Error& error) {
  std::fprintf(stderr, "flowkeep-controller: %s\n", error.text().c_str());
  return error.kind == Error::Kind::kInternal ? kExitFailed : kExitUsage;
}

// Blocks the stop signals in every thread; sigwait takes them.
sigset_t block_stop_signals() {
  sigset_t stop;
  sigemptyset(&stop);
  sigaddset(&stop, SIGTERM);
  sigaddset(&stop, SIGINT);
  pthread_sigmask(SIG_BLOCK, &stop, nullptr);
  return stop;
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse(argc, argv);
  ::setenv("GRPC_VERBOSITY", "NONE", 0);  // its errors reach the user as ours
  const sigset_t stop = block_stop_signals();

  const Clock clock;
  ChangeSignal changed;
  auto store = Store::open(options.store);
  if (!store) return fail(store.error());
  auto fleet = Fleet::open(**store, changed, clock);
  if (!fleet) return fail(fleet.error());
  Deployer deployer(**store, **fleet, changed, validate_functions, clock);
  Reconciler reconciler(**store, **fleet, deployer, changed);
  reconciler.run_once();
  auto server = ApiServer::start({**store, **fleet, deployer, reconciler, changed, clock, {}},
                                 options.listen);
  if (!server) return fail(server.error());
  reconciler.start();
  std::printf("flowkeep-controller %s listens on %s, store %s\n", FLOWKEEP_VERSION,
              options.listen.c_str(), options.store.c_str());
  std::fflush(stdout);

  int received = 0;
  sigwait(&stop, &received);
  (*server)->stop();
  reconciler.stop();
  std::printf("flowkeep-controller stopped\n");
  return 0;
}
