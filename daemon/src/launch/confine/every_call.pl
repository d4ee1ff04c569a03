# Makes system calls under filters, each in a process of its own, and says what came of it.
#
#   perl every_call.pl PRCTL SECCOMP PROGRAM... < lines of: number argument argument ...
#
# A line of output for each line of input: "allowed" when the call was made, whatever it returned; "refused" when it
# failed with ENOSYS; "killed" when it ended the process with SIGSYS. Each PROGRAM is a file of BPF instructions, installed in
# this order with the call numbers PRCTL and SECCOMP.
use strict;
use warnings;
use POSIX ();

my ($prctl, $seccomp, @files) = @ARGV;
my @programs = map { open(my $file, '<:raw', $_) or die "$_: $!"; local $/; scalar <$file> } @files;
my ($ENOSYS, $SIGSYS, $PR_SET_NO_NEW_PRIVS, $SET_MODE_FILTER) = (38, 31, 38, 1);
my ($REFUSED, $NO_FILTER) = (77, 78);

sub attempt {
    my ($number, @arguments) = @_;
    for my $program (@programs) {
        my $fprog = pack('Sx![P]P', length($program) / 8, $program);
        syscall($prctl, $PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 or POSIX::_exit($NO_FILTER);
        syscall($seccomp, $SET_MODE_FILTER, 0, $fprog) == 0 or POSIX::_exit($NO_FILTER);
    }
    my $result = syscall($number, @arguments);
    POSIX::_exit($result == -1 && $! == $ENOSYS ? $REFUSED : 0);
}

$| = 1;
while (my $line = <STDIN>) {
    my @call = map { $_ + 0 } split ' ', $line;
    my $child = fork();
    defined $child or die "fork: $!";
    attempt(@call) if $child == 0;
    my $ended = 0;
    # What waits for something was let through.
    for (my $turn = 0; !$ended && $turn < 500; $turn++) {
        $ended = waitpid($child, POSIX::WNOHANG());
        select(undef, undef, undef, 0.001 * (1 + $turn / 20)) unless $ended;
    }
    if (!$ended) { kill 'KILL', $child; waitpid($child, 0); print "allowed\n"; next; }
    my ($signal, $status) = ($? & 127, $? >> 8);
    die "call $call[0]: no filter could be installed" if $status == $NO_FILTER;
    print $signal == $SIGSYS ? "killed\n" : $status == $REFUSED ? "refused\n" : "allowed\n";
}
