import { makeStyles, MessageBar, MessageBarBody, Text, tokens } from '@fluentui/react-components'
import { useTranslation } from 'react-i18next'
import type { Package, Repository } from '../../api/upgrades'
import { useFormat, useName } from '../../i18n/names'
import { Facts } from '../../ui/Facts'
import { Ago, Status } from '../../ui/marks'
import { Panel } from '../../ui/Panel'
import { PlainTable } from '../../ui/PlainTable'

const useStyles = makeStyles({
  dim: { color: tokens.colorNeutralForeground3 },
  mono: { fontFamily: tokens.fontFamilyMonospace, fontSize: tokens.fontSizeBase200 },
})

/** Signatures that end sooner than this are worth a look. */
const soon = 3 * 86_400_000

/** The signed repository that packages come from. */
export function RepositoryPanel({ repository }: { repository: Repository }) {
  const styles = useStyles()
  const { t } = useTranslation()
  const name = useName()
  const format = useFormat()
  const signed = (s: { version: number; expires: string }, renewed: boolean) => {
    const left = Date.parse(s.expires) - Date.now()
    const text = t('upgrade.signedUntil', { version: format.number(s.version), time: format.time(s.expires) })
    // What is signed again every day runs out soon by design.
    if (left <= 0) return <Status tone="bad">{t('upgrade.expired', { version: format.number(s.version), time: format.time(s.expires) })}</Status>
    return <Status tone={left < soon && !renewed ? 'warn' : 'good'}>{text}</Status>
  }
  return (
    <Panel title={t('upgrade.repository')}>
      {repository.problem !== '' && <MessageBar intent="error" layout="multiline" data-testid="repository-problem"><MessageBarBody>{repository.problem}</MessageBarBody></MessageBar>}
      <Facts facts={[
        { label: t('upgrade.root'), value: signed(repository.root, false), testid: 'repository-root' },
        { label: t('upgrade.timestamp'), value: signed(repository.timestamp, true), testid: 'repository-timestamp' },
      ]}
      />
      {repository.packages.length === 0 ? <Text className={styles.dim}>{t('upgrade.noPackages')}</Text> : (
        <PlainTable<Package>
          label={t('upgrade.packages')} items={repository.packages} rowId={(p) => `${p.name} ${p.version} ${p.arch} ${p.format}`} rowTestid="package-row"
          columns={[
            { id: 'name', header: t('upgrade.package'), cell: (p) => p.name },
            { id: 'version', header: t('upgrade.version'), tight: true, cell: (p) => p.version },
            { id: 'format', header: t('upgrade.format'), tight: true, cell: (p) => name('packageFormat', p.format) },
            { id: 'arch', header: t('machine.arch'), tight: true, cell: (p) => p.arch },
            { id: 'size', header: t('upgrade.size'), tight: true, cell: (p) => t('upgrade.megabytes', { number: format.number(Math.round(p.size / 100_000) / 10) }) },
            { id: 'sha', header: t('file.sha256'), tight: true, cell: (p) => <span className={styles.mono} title={p.sha256}>{p.sha256.slice(0, 12)}…</span> },
            { id: 'added', header: t('upgrade.added'), tight: true, cell: (p) => <Ago time={p.addedAt} /> },
          ]}
        />
      )}
    </Panel>
  )
}
