import { Field, Input, makeStyles, MessageBar, MessageBarBody, mergeClasses, Textarea, tokens } from '@fluentui/react-components'
import { useTranslation } from 'react-i18next'
import type { Connector, ConnectorKind } from '../../../api/connectors'
import { useName } from '../../../i18n/names'
import { Panel } from '../../../ui/Panel'
import { cloudFields, type Draft } from './draft'
import { SecretField } from './SecretField'

const useStyles = makeStyles({
  fields: { display: 'grid', gridTemplateColumns: 'repeat(auto-fit, minmax(min(320px, 100%), 1fr))', alignItems: 'start', gap: tokens.spacingHorizontalL },
  whole: { gridColumn: '1 / -1' },
  mono: { fontFamily: tokens.fontFamilyMonospace, fontSize: tokens.fontSizeBase200 },
})

interface Props {
  kind: Exclude<ConnectorKind, 'ssh'>
  draft: Draft
  set: (part: Partial<Draft>) => void
  disabled: boolean
  connector?: Connector
}

/** How a cloud is reached. */
export function CloudFields({ kind, draft, set, disabled, connector }: Props) {
  const styles = useStyles()
  const { t } = useTranslation()
  const name = useName()
  const stored = connector?.[kind]?.hasSecret === true
  return (
    <Panel title={t('connector.access')}>
      <MessageBar intent="warning" layout="multiline"><MessageBarBody>{t('connector.unverifiedText')}</MessageBarBody></MessageBar>
      <div className={styles.fields}>
        {cloudFields[kind].map((f) => {
          const label = name('cloudField', f.words ?? f.name)
          const hint = f.hint ? name('cloudFieldHint', f.words ?? f.name) : undefined
          if (f.secret) {
            return <SecretField key={f.name} label={label} hint={hint} stored={stored} value={draft.secret[f.name] ?? ''} set={(value) => set({ secret: { ...draft.secret, [f.name]: value } })} disabled={disabled} long={f.long} testid={`cloud-${f.name}`} />
          }
          return (
            <Field key={f.name} label={label} hint={hint} required={!f.optional} className={mergeClasses(f.long && styles.whole)}>
              {f.long
                ? <Textarea value={draft.cloud[f.name] ?? ''} rows={4} disabled={disabled} spellCheck={false} placeholder={f.example} onChange={(_, d) => set({ cloud: { ...draft.cloud, [f.name]: d.value } })} textarea={{ 'data-testid': `cloud-${f.name}`, className: styles.mono } as object} />
                : <Input value={draft.cloud[f.name] ?? ''} maxLength={2048} disabled={disabled} spellCheck={false} autoComplete="off" placeholder={f.example} onChange={(_, d) => set({ cloud: { ...draft.cloud, [f.name]: d.value } })} input={{ 'data-testid': `cloud-${f.name}` } as object} />}
            </Field>
          )
        })}
      </div>
    </Panel>
  )
}
