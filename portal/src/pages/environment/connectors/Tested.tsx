import { makeStyles, MessageBar, MessageBarBody, Spinner, Text, tokens } from '@fluentui/react-components'
import { useTranslation } from 'react-i18next'
import type { TestReport, Tried } from '../../../api/connectors'
import { useFormat } from '../../../i18n/names'
import { Status } from '../../../ui/marks'
import { Panel } from '../../../ui/Panel'
import { PlainTable } from '../../../ui/PlainTable'
import { useReason } from '../../../ui/reasons'
import { useErrorText } from '../../../ui/states'

const useStyles = makeStyles({
  dim: { color: tokens.colorNeutralForeground3 },
  lines: { display: 'flex', flexDirection: 'column', gap: '2px', minWidth: 0, overflowWrap: 'anywhere' },
  mono: { fontFamily: tokens.fontFamilyMonospace },
})

interface Props {
  report: TestReport | undefined
  error: unknown
  busy: boolean
  /** Why it cannot be tested. */
  hint: string | undefined
}

/** What a test found of each host; what does not work comes first. */
export function Tested({ report, error, busy, hint }: Props) {
  const styles = useStyles()
  const { t } = useTranslation()
  const format = useFormat()
  const errorText = useErrorText()
  const words = useReason()
  const hosts = report?.hosts.toSorted((a, b) => Number(a.ok) - Number(b.ok)) ?? []
  return (
    <Panel title={t('connector.testTitle')}>
      {busy && <Spinner size="tiny" labelPosition="after" label={t('connector.testing')} style={{ alignSelf: 'flex-start' }} />}
      {error !== undefined && <MessageBar intent="error" layout="multiline" role="alert" data-testid="test-error"><MessageBarBody>{errorText(error)}</MessageBarBody></MessageBar>}
      {!report && !busy && error === undefined && <Text className={styles.dim}>{hint ?? t('connector.testText')}</Text>}
      {report && (
        <>
          <Status tone={report.passed === hosts.length ? 'good' : 'warn'} testid="test-passed">{t('connector.testPassed', { passed: format.number(report.passed), tried: format.number(hosts.length) })}</Status>
          {report.total > hosts.length && <Text size={200} className={styles.dim}>{t('connector.testSome', { tried: format.number(hosts.length), total: format.number(report.total) })}</Text>}
          <PlainTable<Tried>
            label={t('connector.testTitle')} items={hosts} rowId={(h) => h.address} rowTestid="tried-row"
            columns={[
              { id: 'name', header: t('connector.host'), cell: (h) => <span className={styles.lines}>{h.name}{h.address !== h.name && <Text size={200} className={styles.dim}>{h.address}</Text>}</span> },
              {
                id: 'result', header: t('connector.result'), cell: (h) => (h.reason
                  ? (
                    <span className={styles.lines}>
                      <Status tone="bad">{words(h.reason).text}</Status>
                      {h.reason.detail && <Text size={200} className={styles.mono}>{h.reason.detail}</Text>}
                      <Text size={200} className={styles.dim}>{words(h.reason).remedy}</Text>
                    </span>
                  )
                  : <Status tone="good">{t('connector.canInstall')}</Status>),
              },
              { id: 'os', header: t('machine.os'), cell: (h) => [h.facts?.osName, h.facts?.arch].filter(Boolean).join(', ') },
            ]}
          />
        </>
      )}
    </Panel>
  )
}
