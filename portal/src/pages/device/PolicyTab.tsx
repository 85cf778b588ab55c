import { makeStyles, MessageBar, MessageBarBody, MessageBarTitle, Text, tokens } from '@fluentui/react-components'
import { useTranslation } from 'react-i18next'
import { getApplied, type AppliedSetting, type Source } from '../../api/policies'
import { useData } from '../../api/use'
import { useFormat, useName } from '../../i18n/names'
import { Facts } from '../../ui/Facts'
import { RouteLink } from '../../ui/links'
import { Ago, Moment, Status } from '../../ui/marks'
import { Panel } from '../../ui/Panel'
import { PlainTable } from '../../ui/PlainTable'
import { Failure, Loading } from '../../ui/states'
import { useValue } from '../policies/values'

const useStyles = makeStyles({
  dim: { color: tokens.colorNeutralForeground3 },
  lines: { display: 'flex', flexDirection: 'column' },
  page: { display: 'flex', flexDirection: 'column', gap: tokens.spacingVerticalL },
})

/** What applies to a device, where it comes from, and whether its agent says so. */
export default function PolicyTab({ device }: { device: string }) {
  const styles = useStyles()
  const { t } = useTranslation()
  const name = useName()
  const format = useFormat()
  const { data, error, reload } = useData(`applied ${device}`, (signal) => getApplied(device, signal), [`device:${device}`, 'policy', 'group', 'plan'])
  if (!data) return error ? <Failure error={error} retry={reload} /> : <Loading />
  return (
    <div className={styles.page}>
      {data.error && (
        <MessageBar intent="error" layout="multiline" role="alert">
          <MessageBarBody><MessageBarTitle>{t('applied.refused')}</MessageBarTitle>{data.error}</MessageBarBody>
        </MessageBar>
      )}
      <Panel title={t('applied.title')}>
        <Facts facts={[
          { label: t('applied.state'), value: <Status tone={data.error ? 'bad' : data.pending ? 'warn' : 'good'} testid="applied-state">{data.error ? t('applied.failed') : data.pending ? t('applied.pending') : t('applied.confirmed')}</Status> },
          { label: t('applied.version'), value: format.number(data.version) },
          { label: t('applied.confirmedVersion'), value: data.confirmedAt ? <>{format.number(data.confirmedVersion)}, <Moment time={data.confirmedAt} /></> : '' },
          { label: t('applied.groups'), value: (data.groups ?? []).join(t('policies.comma')) || t('applied.noGroups') },
        ]}
        />
      </Panel>
      {(['antivirus', 'exclusions', 'edr'] as const).map((section) => (
        <Panel key={section} title={name('policyType', section)}>
          <PlainTable
            label={name('policyType', section)} items={data.settings.filter((s) => s.section === section)} rowId={(s) => s.name} rowTestid="applied-row"
            columns={[
              { id: 'setting', header: t('applied.setting'), cell: (s) => name('policySetting', s.name) },
              { id: 'value', header: t('applied.value'), cell: (s) => <Values setting={s.name} value={s.value} /> },
              { id: 'source', header: t('applied.source'), cell: (s) => <Sources setting={s} /> },
              { id: 'overridden', header: t('applied.overridden'), cell: (s) => <Overridden setting={s} /> },
              { id: 'confirmed', header: t('applied.since'), cell: (s) => <Confirmed setting={s} /> },
            ]}
          />
        </Panel>
      ))}
    </div>
  )
}

function Values({ setting, value }: { setting: string; value: unknown }) {
  const styles = useStyles()
  const lines = useValue()(setting, value)
  return <span className={styles.lines}>{lines.map((line, i) => <span key={i}>{line}</span>)}</span>
}

function SourceName({ source }: { source: Source }) {
  const name = useName()
  if (source.kind === 'policy' && source.id) return <RouteLink to={`/policies/${source.id}`}>{source.name ?? source.id}</RouteLink>
  return <>{name('policySource', source.kind)}</>
}

function Sources({ setting }: { setting: AppliedSetting }) {
  const styles = useStyles()
  return (
    <span className={styles.lines}>
      <span><SourceName source={setting.source} /></span>
      {(setting.united ?? []).map((s, i) => <span key={i}><SourceName source={s} /></span>)}
    </span>
  )
}

function Overridden({ setting }: { setting: AppliedSetting }) {
  const styles = useStyles()
  const { t } = useTranslation()
  const words = useValue()
  return (
    <span className={styles.lines}>
      {(setting.overridden ?? []).map((o, i) => <span key={i}><SourceName source={o} />{t('applied.says', { value: words(setting.name, o.value).join(t('policies.comma')) })}</span>)}
    </span>
  )
}

function Confirmed({ setting }: { setting: AppliedSetting }) {
  const styles = useStyles()
  const { t } = useTranslation()
  if (setting.source.kind === 'default' || setting.source.kind === 'device') return <Text className={styles.dim}>{t('applied.notManaged')}</Text>
  if (!setting.confirmed) return <Status tone="warn">{t('applied.notYet')}</Status>
  return <Status tone="good">{setting.since ? <Ago time={setting.since} /> : t('applied.confirmed')}</Status>
}
