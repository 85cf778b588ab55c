import { useTranslation } from 'react-i18next'
import type { ProcessInfo } from '../api/types'
import { commandLine, pidOf } from './processes'
import { Copyable } from './Copy'
import { Facts } from './Facts'
import { Moment } from './marks'

/** All that is known of a process. */
export function ProcessFacts({ process, narrow }: { process: ProcessInfo; narrow?: boolean }) {
  const { t } = useTranslation()
  const user = process.user
  const line = commandLine(process)
  return (
    <>
      {line !== '' && <Copyable text={line} label={t('process.commandLine')} testid="process-command" />}
      <Facts
        narrow={narrow}
        facts={[
          { label: t('process.name'), value: process.name },
          { label: t('process.path'), value: process.path },
          { label: t('process.id'), value: pidOf(process.key) },
          { label: t('process.user'), value: user && (user.name ? t('process.userId', { name: user.name, id: user.euid ?? user.uid ?? '' }) : String(user.euid ?? user.uid ?? '')) },
          { label: t('process.realUser'), value: user && user.uid !== undefined && user.euid !== undefined && user.uid !== user.euid ? String(user.uid) : undefined },
          { label: t('process.started'), value: process.started && <Moment time={process.started} /> },
          { label: t('process.exitCode'), value: process.exitCode === undefined || process.exitCode === null ? undefined : String(process.exitCode) },
          { label: t('file.sha256'), value: process.sha256 },
        ]}
      />
    </>
  )
}
