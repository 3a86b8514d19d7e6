import { type FileServer, startPureFtpd, startVsftpd } from '../support/ftp-servers.ts'
import { startSshd } from '../support/sshd.ts'
import { remoteFilesConformance } from './remote-files.conformance.ts'
import type { RemoteHome } from './remote-home.ts'

const certified = (home: RemoteHome, mode: 'explicit' | 'implicit') => ({
  tls: { certificate: home.certificates.good, mode },
})
const trusting = ({ connection }: FileServer, { certificates }: RemoteHome) => ({
  ...connection,
  tls: { ...connection.tls, ca: certificates.ca },
})

remoteFilesConformance('FTP (vsftpd)', (home) => startVsftpd(home.path))
remoteFilesConformance('FTP (pure-ftpd)', (home) => startPureFtpd(home.path))
remoteFilesConformance(
  'FTPS with forced session reuse (vsftpd)',
  (home) => startVsftpd(home.path, certified(home, 'explicit')),
  trusting,
)
remoteFilesConformance('FTPS (pure-ftpd)', (home) => startPureFtpd(home.path, certified(home, 'explicit')), trusting)
remoteFilesConformance(
  'implicit FTPS (vsftpd)',
  (home) => startVsftpd(home.path, certified(home, 'implicit')),
  trusting,
)
remoteFilesConformance('SFTP with a password (OpenSSH)', (home) => startSshd(home.path))
remoteFilesConformance('SFTP with a key (OpenSSH)', (home) => startSshd(home.path, { auth: 'key' }))
